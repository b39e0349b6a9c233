//! What etcd's command lines may say besides the flags that mean something here.

use std::ffi::OsString;

/// Flags of etcd that are taken and have no effect: whether their value may be left out, and why nothing is lost.
const WITHOUT_EFFECT: &[(&str, bool, &str)] = &[
    ("auth-token", false, "there is no authentication of users"),
    ("auth-token-ttl", false, "there is no authentication of users"),
    ("backend-batch-interval", false, "writes that wait together share a sync"),
    ("backend-batch-limit", false, "writes that wait together share a sync"),
    ("bcrypt-cost", false, "there is no authentication of users"),
    ("compaction-batch-limit", false, "compaction takes small steps"),
    ("enable-grpc-gateway", true, "there is no gateway"),
    ("enable-pprof", true, "there is no profile to be asked for"),
    ("enable-v2", true, "there is no v2 API"),
    ("experimental-compaction-batch-limit", false, "compaction takes small steps"),
    ("experimental-corrupt-check-time", false, "members do not compare their hashes by themselves"),
    ("experimental-enable-lease-checkpoint", true, "leases last across changes of the leader"),
    ("experimental-initial-corrupt-check", true, "all that is read is checked by its checksum"),
    ("experimental-peer-skip-client-san-verification", true, "peers may connect from anywhere"),
    ("experimental-warning-apply-duration", false, "slow requests are not logged"),
    ("experimental-watch-progress-notify-interval", false, "progress is told every 5 s"),
    ("feature-gates", false, "there are no feature gates"),
    ("grpc-keepalive-min-time", false, "clients may ping as they like"),
    ("initial-election-tick-advance", true, "elections are as fast as they can be"),
    ("log-format", false, "lines look the same for each"),
    ("log-outputs", false, "the log goes to stderr"),
    ("max-snapshots", false, "no more states are kept than are needed"),
    ("max-wals", false, "no more of the log is kept than is needed"),
    ("metrics", false, "all metrics are there"),
    ("peer-skip-client-san-verification", true, "peers may connect from anywhere"),
    ("pre-vote", true, "it is always on"),
    ("self-signed-cert-validity", false, "certificates that are made here do not expire"),
    ("strict-reconfig-check", true, "it is always on"),
    ("watch-progress-notify-interval", false, "progress is told every 5 s"),
];

/// The arguments with two dashes before each flag, as Go's programs take one too, and without those that have no effect here; for
/// each of these its name and the reason.
pub(crate) fn arguments(
    given: impl IntoIterator<Item = OsString>,
) -> (Vec<OsString>, Vec<(&'static str, &'static str)>) {
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    let mut given = given.into_iter();
    kept.extend(given.next());
    while let Some(argument) = given.next() {
        let flag = argument.to_str().and_then(|text| text.strip_prefix('-'));
        // `-h` and `-V` are short flags, and a number may be a value.
        let Some(flag) = flag.filter(|flag| flag.len() > 1 && !flag.starts_with(|c: char| c.is_ascii_digit())) else {
            kept.push(argument);
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        match WITHOUT_EFFECT.iter().find(|(known, ..)| *known == name) {
            Some((name, may_be_alone, why)) => {
                if value.is_none() && !may_be_alone {
                    given.next();
                }
                dropped.push((*name, *why));
            }
            None => kept.push(format!("--{flag}").into()),
        }
    }
    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(given: &[&str]) -> (Vec<String>, Vec<&'static str>) {
        let given = std::iter::once(&"rk-etcd").chain(given).map(OsString::from);
        let (kept, dropped) = arguments(given);
        let kept = kept.into_iter().skip(1).map(|argument| argument.into_string().unwrap()).collect();
        (kept, dropped.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn flags_without_effect_go_with_their_values() {
        let given = ["--max-wals", "3", "--pre-vote", "--name", "a", "--enable-v2=false", "-max-snapshots=5", "-h"];
        let (kept, dropped) = split(&given);
        assert_eq!(kept, ["--name", "a", "-h"]);
        assert_eq!(dropped, ["max-wals", "pre-vote", "enable-v2", "max-snapshots"]);
    }

    #[test]
    fn one_dash_is_as_two() {
        assert_eq!(split(&["-name", "a", "-data-dir=b"]).0, ["--name", "a", "--data-dir=b"]);
        assert_eq!(split(&["--quota-backend-bytes", "-1"]).0, ["--quota-backend-bytes", "-1"]);
        assert_eq!(split(&["--nothing", "-"]).0, ["--nothing", "-"]);
    }
}
