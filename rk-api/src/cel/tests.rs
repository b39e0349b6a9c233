//! Expressions against the results that documentation gives.

use serde_json::{Value, json};

use super::*;

fn run(text: &str, value: &Value) -> Result<Value, String> {
    Program::compile(text, &["self"]).map_err(|error| error.to_string())?.run(&[value])
}

/// Each expression is true.
fn hold(value: &Value, expressions: &[&str]) {
    for text in expressions {
        assert_eq!(run(text, value), Ok(json!(true)), "{text}");
    }
}

/// Each expression has this value.
fn equal(cases: &[(&str, Value)]) {
    for (text, value) in cases {
        assert_eq!(run(text, &Value::Null), Ok(value.clone()), "{text}");
    }
}

/// <https://kubernetes.io/docs/reference/using-api/cel/#language-overview>
#[test]
fn examples_of_the_overview() {
    let object = json!({
        "minReplicas": 1, "replicas": 2, "maxReplicas": 3, "stateCounts": {"Available": 3}, "list1": [], "list2": [1],
        "envars": [{"name": "MY_ENV", "value": "abc"}, {"name": "OTHER", "value": "1"}], "health": "ok, sure",
        "widgets": [{"key": "x", "foo": 5}], "metadata": {"name": "singleton"}, "set1": ["a"], "set2": ["b"],
        "names": ["a", "b"], "details": {"a": "x", "b": "y"}, "percent": "99%", "count": 42,
    });
    hold(
        &object,
        &[
            "self.minReplicas <= self.replicas && self.replicas <= self.maxReplicas",
            "'Available' in self.stateCounts",
            "(self.list1.size() == 0) != (self.list2.size() == 0)",
            "self.envars.filter(e, e.name == 'MY_ENV').all(e, e.value.matches('^[a-zA-Z]*$'))",
            "self.health.startsWith('ok')",
            "self.widgets.exists(w, w.key == 'x' && w.foo < 10)",
            "type(self.percent) == string ? self.percent == '99%' : self.percent == 42",
            "type(self.count) == string ? self.count == '99%' : self.count == 42",
            "self.metadata.name == 'singleton'",
            "self.set1.all(e, !(e in self.set2))",
            "self.names.size() == self.details.size() && self.names.all(n, n in self.details)",
            "self.details.all(key, key.matches('^[a-zA-Z]*$'))",
            "self.details.all(key, self.details[key].matches('^[a-zA-Z]*$'))",
            "!has(self.namex) && has(self.health)",
        ],
    );
}

/// <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-list-library>, `-regex-`, `-url-`, `-ip-address-`,
/// `-cidr-`, `-format-`, `-quantity-` and `-semver-library`.
#[test]
fn kubernetes_libraries() {
    equal(&[
        ("['a', 'b', 'c'].isSorted()", json!(true)),
        ("['b', 'a'].isSorted()", json!(false)),
        ("[1.5, 2.5].sum() == 4.0", json!(true)),
        ("[duration('1m'), duration('1s')].sum()", json!("61s")),
        ("[].sum()", json!(0)),
        ("[duration('1m')].filter(d, false).sum() < duration('1s')", json!(true)),
        ("[1, 3, 2].max() - [1, 3, 2].min()", json!(2)),
        ("['x', 'y', 'x'].indexOf('x')", json!(0)),
        ("['x', 'y', 'x'].lastIndexOf('x')", json!(2)),
        ("['x'].indexOf('z')", json!(-1)),
        ("\"abc 123\".find('[0-9]+')", json!("123")),
        ("\"1, 2, 3, 4\".findAll('[0-9]+').map(x, int(x)).sum() < 100", json!(true)),
        ("\"123 abc 456\".findAll('[0-9]+', 1)", json!(["123"])),
        ("url('https://example.com:80/').getHost()", json!("example.com:80")),
        ("url('https://example.com/path with spaces/').getEscapedPath()", json!("/path%20with%20spaces/")),
        ("url('https://[::1]:80/').getHostname()", json!("::1")),
        ("url('https://example.com:80/').getPort()", json!("80")),
        ("url('/path').getScheme()", json!("")),
        ("url('https://example.com/?k1=a&k2=b&k2=c').getQuery()", json!({"k1": ["a"], "k2": ["b", "c"]})),
        ("isURL('https://a:80/')", json!(true)),
        ("isURL('../relative')", json!(false)),
        ("isIP('127.0.0.1') && isIP('::1') && !isIP('127.0.0.256')", json!(true)),
        ("ip('127.0.0.1').family()", json!(4)),
        ("ip.isCanonical('2001:db8::ABCD')", json!(false)),
        ("ip.isCanonical('2001:db8::abcd')", json!(true)),
        ("ip('0.0.0.0').isUnspecified()", json!(true)),
        ("ip('127.0.0.1').isLoopback()", json!(true)),
        ("ip('224.0.0.1').isLinkLocalMulticast() && ip('ff02::1').isLinkLocalMulticast()", json!(true)),
        ("ip('169.254.169.254').isLinkLocalUnicast()", json!(true)),
        ("ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast()", json!(true)),
        ("isIP('::ffff:1.2.3.4')", json!(false)),
        ("cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))", json!(true)),
        ("cidr('192.168.0.0/24').containsIP('192.168.1.1')", json!(false)),
        ("cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24')", json!(true)),
        ("cidr('192.168.0.1/24').masked().string()", json!("192.168.0.0/24")),
        ("cidr('::1/128').ip().family() + cidr('10.0.0.0/8').prefixLength()", json!(14)),
        ("!format.dns1123Label().validate('my-name').hasValue()", json!(true)),
        ("format.dns1123Label().validate('My_name').hasValue()", json!(true)),
        ("format.named('uuid').value().validate('x').value()", json!(["does not match the UUID format"])),
        ("format.named('nothing').hasValue()", json!(false)),
        ("quantity(\"500000G\").isInteger()", json!(true)),
        ("quantity(\"50k\").asInteger()", json!(50000)),
        ("quantity(\"50k\").add(quantity(\"20k\")) == quantity(\"70k\")", json!(true)),
        ("quantity(\"50k\").sub(20000) == quantity(\"30k\")", json!(true)),
        ("quantity(\"50k\").add(20).sub(quantity(\"100k\")).sub(-50000) == quantity(\"20\")", json!(true)),
        ("quantity(\"200M\").compareTo(quantity(\"0.2G\"))", json!(0)),
        ("quantity(\"150Mi\").isGreaterThan(quantity(\"100Mi\"))", json!(true)),
        ("quantity(\"50M\").isLessThan(quantity(\"100M\"))", json!(true)),
        ("isQuantity('1.3Gi') && !isQuantity('1,3Gi')", json!(true)),
        ("semver('1.2.3').isLessThan(semver('1.10.0-rc.1'))", json!(true)),
        ("semver('v1.2', true).patch()", json!(0)),
        ("isSemver('v1.0')", json!(false)),
        ("semver('1.0.0-alpha').compareTo(semver('1.0.0'))", json!(-1)),
    ]);
}

/// <https://pkg.go.dev/github.com/google/cel-go/ext#Strings>, `#Lists`, `#Sets`, `#TwoVarComprehensions` and `#Bindings`,
/// and <https://pkg.go.dev/github.com/google/cel-go/cel#OptionalTypes>.
#[test]
fn extensions() {
    equal(&[
        ("'hello'.charAt(4)", json!("o")),
        ("'hello'.charAt(5)", json!("")),
        ("'hello mellow'.indexOf('ello')", json!(1)),
        ("'hello mellow'.indexOf('ello', 2)", json!(7)),
        ("'hello mellow'.lastIndexOf('ello')", json!(7)),
        ("'hello mellow'.lastIndexOf('ello', 6)", json!(1)),
        ("['hello', 'mellow'].join(', ')", json!("hello, mellow")),
        ("'TacoCÆt'.lowerAscii() == 'tacocÆt'", json!(true)),
        ("'hello hello'.replace('he', 'we', 1)", json!("wello hello")),
        ("'hello hello hello'.split(' ', 2)", json!(["hello", "hello hello"])),
        ("'abc'.split('')", json!(["a", "b", "c"])),
        ("'tacocat'.substring(4)", json!("cat")),
        ("'tacocat'.substring(0, 4)", json!("taco")),
        ("'  trim  '.trim()", json!("trim")),
        ("'gums'.reverse()", json!("smug")),
        (
            "'this is a string: %s\\nand an integer: %d'.format(['str', 42])",
            json!("this is a string: str\nand an integer: 42"),
        ),
        (
            "'%.3f, %x, %b, %e, 100%%'.format([1.2345, 26, true, 1052.032911275])",
            json!("1.234, 1a, 1, 1.052033e+03, 100%"),
        ),
        (
            "'%s'.format([[dyn(1), dyn(2.5), dyn('a'), dyn(null), dyn({'k': true})]])",
            json!("[1, 2.5, a, null, {k: true}]"),
        ),
        ("[1, 2, 3, 4].slice(1, 3)", json!([2, 3])),
        ("[[1, 2], [3]].flatten()", json!([1, 2, 3])),
        ("[1, 2, 2, 3].distinct()", json!([1, 2, 3])),
        ("lists.range(3)", json!([0, 1, 2])),
        ("['b', 'a'].sort()", json!(["a", "b"])),
        ("sets.contains([1, 2, 3], [2])", json!(true)),
        ("sets.equivalent([1, 1], [1])", json!(true)),
        ("sets.intersects([1], [])", json!(false)),
        ("[1, 2, 3].all(i, v, i < v)", json!(true)),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", json!(true)),
        ("[1, 2].transformList(i, v, i * v)", json!([0, 2])),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", json!({"b": 20})),
        ("['x', 'y'].transformMapEntry(i, v, {v: i})", json!({"x": 0, "y": 1})),
        ("cel.bind(a, 'x', a + a)", json!("xx")),
        ("optional.of(1).orValue(2) + optional.none().orValue(2)", json!(3)),
        ("{'a': {'b': 1}}.?a.?b.value()", json!(1)),
        ("{'a': 1}[?'c'].hasValue()", json!(false)),
        ("[1, 2][?5].orValue(7)", json!(7)),
        ("[?optional.none(), ?optional.of(1)]", json!([1])),
        ("{?'a': optional.none(), 'b': 1}", json!({"b": 1})),
        ("optional.of(2).optMap(x, x * 2).value()", json!(4)),
        ("optional.ofNonZeroValue('').hasValue()", json!(false)),
    ]);
}

/// <https://github.com/google/cel-spec/blob/master/doc/langdef.md>
#[test]
fn the_language() {
    equal(&[
        ("7 / 2 + 7 % 2 - -1", json!(5)),
        ("1.0 / 3.0 < 0.34", json!(true)),
        ("1 < 1.5 && 2u > 1", json!(true)),
        ("dyn(1) == 1.0 && dyn(1u) == 1", json!(true)),
        ("'a' + 'b' == 'ab' && [1] + [2] == [1, 2]", json!(true)),
        ("'é'.size()", json!(1)),
        ("b'abc'.size() + size({'a': 1})", json!(4)),
        ("(1 / 0 > 0) || true", json!(true)),
        ("false && (1 / 0 > 0)", json!(false)),
        ("[1, 2, 3].exists_one(x, x > 2)", json!(true)),
        ("[0, 1].exists(x, 1 / x == 1)", json!(true)),
        ("{'a': 1}.map(k, k + 'x')", json!(["ax"])),
        ("[1, 2, 3].map(x, x > 1, x * x)", json!([4, 9])),
        ("int('7') + int(2.9) + int(timestamp('1970-01-01T00:01:00Z'))", json!(69)),
        ("string(1.5) + string(true) + string(b'x')", json!("1.5truex")),
        ("timestamp('2024-02-29T12:00:00Z') + duration('24h') == timestamp('2024-03-01T12:00:00Z')", json!(true)),
        ("timestamp('2024-02-29T12:34:56.789Z').getMilliseconds()", json!(789)),
        ("timestamp('2024-02-29T12:34:56Z').getMonth()", json!(1)),
        ("timestamp('2024-02-29T12:34:56Z').getDayOfWeek()", json!(4)),
        ("timestamp('2024-02-29T23:34:56Z').getHours('-08:00')", json!(15)),
        ("duration('1h30m').getMinutes()", json!(90)),
        ("string(duration('1m1ms'))", json!("60.001s")),
        ("type(1) == int && type('a') == string && type([]) == list && type(null) == null_type", json!(true)),
        ("r'\\d' == '\\\\d'", json!(true)),
        ("'abc'.contains('b') && 'abc'.endsWith('c') && matches('abc', 'b')", json!(true)),
    ]);
    for (text, why) in [
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808 / -1", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("[1][1]", "index out of bounds: 1"),
        ("{'a': 1}['b']", "no such key: b"),
        ("self.a", "no such overload"),
        ("dyn(1) + dyn('a')", "no such overload"),
        ("int('x')", "type conversion error: cannot convert \"x\" to int"),
        ("{'a': 1, 'a': 2}", "failed with repeated key: a"),
        ("[].max()", "max called on empty list"),
        ("optional.none().value()", "optional.none() dereference"),
        ("duration('1x')", "time: invalid duration \"1x\""),
        ("timestamp('9999-12-30T21:00:00Z') + duration('24h')", "timestamp overflow"),
        ("'abc'.substring(2, 1)", "invalid substring range. start: 2, end: 1"),
    ] {
        assert_eq!(run(text, &Value::Null), Err(why.to_owned()), "{text}");
    }
}

#[test]
fn what_can_not_be_right_is_told_with_its_place() {
    for (text, why) in [
        ("self.a +", "ERROR: <input>:1:9: Syntax error: mismatched input '<EOF>'"),
        ("foo", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^"),
        ("foo(1)", "undeclared reference to 'foo' (in container '')"),
        (
            "'a' + 1",
            "ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'\n | 'a' + 1\n | ....^",
        ),
        ("'a'.startsWith(1)", "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("1 == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("[1, 'a']", "expected type 'int' but found 'string'"),
        ("(1).x", "type 'int' does not support field selection"),
        ("[1].all(x, x)", "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("[1].all(1, true)", "argument must be a simple name"),
        ("(1).all(x, true)", "cannot be range of a comprehension"),
        ("'a'.matches('(')", "error parsing regexp"),
        ("has(self)", "invalid argument to has() macro"),
        ("true ? 1 : 'a'", "found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
    ] {
        let error = Program::compile(text, &["self"]).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn a_cost_ends_an_evaluation() {
    let list = Value::from((0..200).collect::<Vec<_>>());
    let deep = "self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d >= 0))))";
    assert_eq!(run(deep, &list), Err("operation cancelled: actual cost limit exceeded".to_owned()));
    for hungry in ["lists.range(1000000000000).size() > 0", "self.map(a, self.map(b, self.map(c, 'x')))"] {
        assert_eq!(run(hungry, &list), Err("operation cancelled: actual cost limit exceeded".to_owned()), "{hungry}");
    }
    let doubled = (0..60).fold("x".to_owned(), |text, _| format!("cel.bind(x, x + x, {text})"));
    let text = format!("cel.bind(x, 'ab', {doubled})").to_owned();
    assert_eq!(run(&text, &list), Err("operation cancelled: actual cost limit exceeded".to_owned()));
}

/// cel-go's costs, and apiserver's of its own functions (`library/cost_test.go`).
#[test]
fn regular_expressions_cost_what_they_do_in_kubernetes() {
    let long = "a".repeat(1000);
    let object = json!({"text": "abc 123 def 123", "pattern": "123", "umlauts": "ä".repeat(9), "long": long});
    // `self` and a field of it cost 2.
    for (text, cost) in [
        ("'abc 123 def 123'.matches('123')", 2),
        ("'abc 123 def 123'.find('123')", 2),
        ("'abc 123 def 123'.findAll('123')", 2),
        ("self.text.find(self.pattern)", 2 + 2 + 2),
        ("self.text.matches('[0-9]{3} [a-z]+')", 2 + 2 * 4),
        ("self.umlauts.matches('ääää')", 2 + 1),
        ("self.long.matches(self.text)", 2 + 2 + 101 * 4),
        ("'abc'.contains('b')", 1),
    ] {
        let program = Program::compile(text, &["self"]).unwrap();
        let answers = Answers::default();
        let mut meter = Meter::new(CALL_LIMIT, &answers);
        program.evaluate([Val::of(&object, &Type::Dyn).unwrap()].as_slice(), &mut meter).unwrap();
        assert_eq!(meter.spent(), cost, "{text}");
    }
}

#[test]
fn deep_and_long_texts_are_refused() {
    for text in [
        format!("{}1{}", "(".repeat(2000), ")".repeat(2000)),
        format!("self{}", ".a".repeat(3000)),
        format!("1{}", "+1".repeat(3000)),
        "[".repeat(5000),
        format!("{}true", "!".repeat(9000)),
        format!("{}true", "true ? ".repeat(400)),
        "x".repeat(200_000),
        "-".repeat(20_000),
    ] {
        let _ = Program::compile(&text, &["self"]);
    }
    // As deep as may be, on the stack of a test.
    for (text, value) in [
        (format!("1{}", "+1".repeat(240)), json!(241)),
        (format!("{}1{}", "[".repeat(120), "][0]".repeat(120)), json!(1)),
        (format!("{}1{}", "cel.bind(x, 1, ".repeat(120), ")".repeat(120)), json!(1)),
        (format!("{}true{}", "[1].all(x, ".repeat(120), ")".repeat(120)), json!(true)),
        (format!("self{}", ".?a".repeat(120)), Value::Null),
    ] {
        assert_eq!(run(&text, &Value::Null), Ok(value), "{text}");
    }
    assert!(Program::compile(&format!("self{}", ".a".repeat(300)), &["self"]).is_err());
}
