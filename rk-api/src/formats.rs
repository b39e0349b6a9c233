//! The `format`s of OpenAPI that apiextensions checks; unknown ones hold.

use std::{net::IpAddr, str::FromStr, sync::LazyLock};

use base64::Engine;
use regex::Regex;

static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$")
        .expect("a fixed pattern")
});
static MAC: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$").expect("a fixed pattern"));
static DURATION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[+-]?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$").expect("a fixed pattern")
});
static HEX_COLOR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$").expect("a fixed pattern"));

/// Whether a text has a format.
pub(crate) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => jiff::Timestamp::from_str(text).is_ok(),
        "date" => text.len() == 10 && jiff::civil::Date::from_str(text).is_ok(),
        "duration" => DURATION.is_match(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => IpAddr::from_str(text).is_ok_and(|ip| ip.is_ipv4()),
        "ipv6" => IpAddr::from_str(text).is_ok_and(|ip| ip.is_ipv6()),
        "cidr" => cidr(text),
        "mac" => MAC.is_match(text),
        "hostname" => text.len() <= 255 && HOSTNAME.is_match(text),
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && HOSTNAME.is_match(host)),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid(format, text),
        "uri" => text.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty() && scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && !text.contains(' ')
        }),
        "hexcolor" => HEX_COLOR.is_match(text),
        _ => true,
    }
}

fn cidr(text: &str) -> bool {
    let Some((ip, bits)) = text.split_once('/') else { return false };
    let most = match IpAddr::from_str(ip) {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

fn uuid(format: &str, text: &str) -> bool {
    let Ok(parsed) = uuid::Uuid::parse_str(text) else { return false };
    match format {
        "uuid3" => parsed.get_version_num() == 3,
        "uuid4" => parsed.get_version_num() == 4,
        "uuid5" => parsed.get_version_num() == 5,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_checked() {
        for (format, good, bad) in [
            ("date-time", "2024-01-01T00:00:00Z", "2024-01-01"),
            ("date", "2024-02-29", "2024-02-30"),
            ("duration", "1h30m", "1x"),
            ("byte", "YQ==", "Y"),
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("hostname", "a.example", "-a"),
            ("email", "a@b.c", "a@"),
            ("uuid4", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "f47ac10b-58cc-1372-a567-0e02b2c3d479"),
            ("uri", "https://a/b", "a b"),
        ] {
            assert!(holds(format, good), "{format} {good}");
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(holds("anything", ""));
    }
}
