//! Expressions of rules and policies: made of parts that fit or do not, and damaged ones.

use std::{sync::LazyLock, time::Instant};

use rk_api::cel::Program;
use serde_json::{Value, json};

use crate::mutate::{Random, mutate};

/// Seconds that one evaluation may take: its cost is bounded.
const PATIENCE: f64 = 5.0;

/// Whole expressions, to be damaged.
const WHOLE: [&str; 14] = [
    "self.list.all(x, x.name.startsWith('a') && x.port in [80, 443])",
    "has(self.a) ? self.a.?b.orValue(1) + 2 : int('3') * -1",
    "self.text.matches('^[a-z]+$') || self.text.find('[0-9]+') == '1' || 'a1b2'.findAll('[0-9]', 1).size() > 0",
    "quantity(self.size).isGreaterThan(quantity('1Gi')) && quantity('50k').add(20).sub(quantity('1m')).sign() == 1",
    "url('https://a.example:80/p?q=1#f').getQuery()['q'] == ['1'] && isURL(self.text)",
    "ip(self.ip).isGlobalUnicast() && cidr('10.0.0.0/8').containsIP(self.ip) && cidr('::/0').masked().prefixLength() == 0",
    "timestamp('2024-01-01T00:00:00Z') + duration('1h30m') > timestamp(self.when) || self.when.size() == 20",
    "'%s %d %.3f %x %e'.format([self.text, 1, 2.5, 255, 1.0]).replace('a', 'bb', 2).split(' ', 3).join('-')",
    "sets.contains([1, 2], [1]) && [3, 1].sort() == [1, 3] && [[1], [2]].flatten().sum() == 3 && lists.range(5).max() == 4",
    "self.map.transformMap(k, v, v > 1, v * 2) == {'b': 4} && self.list.transformList(i, v, i).isSorted()",
    "cel.bind(x, self.list, x.map(y, y.name).filter(n, n.lowerAscii() == n).exists_one(n, n == 'a'))",
    "format.named('dns1123Label').value().validate(self.text).hasValue() || semver('1.2.3-rc.1').isLessThan(semver('2.0.0'))",
    "optional.of(self.text).optMap(t, t.substring(1)).orValue('') == 'bc' && [?optional.none(), 1][?3].hasValue()",
    "r'\\d' + \"\\u00e9\" + '''x''' == b'abc' || 0x1F == 31u || 1e3 > .5 || self['text'].charAt(0).indexOf('a', 0) == 0",
];

/// Parts that are strung together.
const PARTS: &[&str] = &[
    "self",
    ".list",
    ".text",
    ".map",
    ".a",
    ".?b",
    "[0]",
    "[?0]",
    "['a']",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " != ",
    " < ",
    " >= ",
    " && ",
    " || ",
    " in ",
    "!",
    "-",
    "1",
    "0",
    "-1",
    "9223372036854775807",
    "18446744073709551615u",
    "1.5",
    "'a'",
    "\"é\"",
    "b'x'",
    "null",
    "true",
    ".all(x, ",
    ".map(x, ",
    ".filter(x, ",
    ".exists(x, y, ",
    "x",
    "has(",
    "size(",
    ".size()",
    "int(",
    "string(",
    "dyn(",
    "type(",
    ".sum()",
    ".matches(",
    "duration('1h')",
    "timestamp(0)",
    "optional.of(",
    "quantity('1')",
    ".format([",
    "lists.range(",
    "cel.bind(x, ",
];

static OBJECT: LazyLock<Value> = LazyLock::new(|| {
    json!({"list": [{"name": "a", "port": 80}, {"name": "b", "port": 1}], "text": "abc", "map": {"a": 1, "b": 2},
        "a": {"b": 1}, "size": "2Gi", "ip": "10.1.2.3", "when": "2024-01-01T00:00:00Z", "float": 1.5, "none": null})
});

/// Whatever the text is, it is refused, or evaluated to a value or an error, soon.
pub fn cel(random: &mut Random) -> bool {
    let text = match random.below(4) {
        0 => (0..1 + random.below(40)).map(|_| PARTS[random.below(PARTS.len())]).collect(),
        1 => {
            let (part, times) = (PARTS[random.below(PARTS.len())], random.below(3000));
            format!("{}{}", PARTS[random.below(PARTS.len())], part.repeat(times))
        }
        2 => {
            let (a, b) = (WHOLE[random.below(WHOLE.len())], WHOLE[random.below(WHOLE.len())]);
            format!("({a}) {} ({b})", ["&&", "||", "==", "+", "<", "in"][random.below(6)])
        }
        _ => {
            let mut bytes = WHOLE[random.below(WHOLE.len())].as_bytes().to_vec();
            mutate(&mut bytes, 0, random);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let started = Instant::now();
    let Ok(program) = Program::compile(&text, &["self"]) else { return false };
    let value = program.run(&[&OBJECT]);
    assert!(started.elapsed().as_secs_f64() < PATIENCE, "{text:?} took {:?}", started.elapsed());
    value.is_ok()
}
