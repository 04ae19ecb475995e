//! Durations, sizes, networks, dates and names, as they are written.
//!
//! Every error is "what is wrong; what would be right".

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::{IpNet, Ipv4Net};

use super::text::shown;

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: &[(&str, u64)] =
    &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];

/// `90s`, `5m`, `8h`, `30d`; `250ms` for tests and labs.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let millis = amount(text, DURATIONS)
        .ok_or_else(|| format!("\"{}\" is no duration; write 90s, 5m, 8h or 30d", shown(text)))?;
    let duration = Duration::from_millis(millis);
    if range.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (written(range.start().as_millis()), written(range.end().as_millis()));
    Err(format!("{text} is out of range; write a duration from {least} to {most}"))
}

/// So many milliseconds, as [`duration`] reads them.
pub(super) fn written(millis: u128) -> String {
    let unit =
        DURATIONS.iter().rev().find(|(_, unit)| millis > 0 && millis.is_multiple_of(u128::from(*unit)));
    unit.map_or_else(|| "0s".into(), |(name, unit)| format!("{}{name}", millis / u128::from(*unit)))
}

/// `64KiB`, `2GiB`.
pub(super) fn size(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let bytes = amount(text, SIZES).ok_or_else(|| {
        format!("\"{}\" is no size; write 64KiB, 256MiB or 2GiB (units of 1024)", shown(text))
    })?;
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    let written = |bytes: u64| {
        let unit = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
        unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
    };
    let (least, most) = (written(*range.start()), written(*range.end()));
    Err(format!("{text} is out of range; write a size from {least} to {most}"))
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A date (its first moment, in UTC) or a moment with its offset.
pub(crate) fn timestamp(text: &str) -> Result<jiff::Timestamp, String> {
    let moment = if text.len() == "2026-12-31".len() { format!("{text}T00:00:00Z") } else { text.into() };
    moment.parse().map_err(|_| {
        format!("\"{}\" is no moment; write 2026-12-31, or with its offset 2026-12-31T18:00:00Z", shown(text))
    })
}

/// `10.20.0.0/16`, `2001:db8::/48`, or one address. IPv4-mapped networks come out as IPv4.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = parsed.map_err(|_| {
        format!("\"{}\" is no network; write 10.20.0.0/16, 2001:db8:20::/48, or one address", shown(text))
    })?;
    if net.trunc() != net {
        return Err(format!(
            "{net} has bits set behind its prefix; write {}, or {}",
            net.trunc(),
            net.addr()
        ));
    }
    Ok(unmapped(net))
}

fn unmapped(net: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let IpNet::V6(v6) = net else { return net };
    v6.addr()
        .to_ipv4_mapped()
        .filter(|_| v6.prefix_len() >= MAPPED)
        .and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - MAPPED).ok())
        .map_or(net, IpNet::V4)
}

/// One address. An IPv4-mapped one comes out as IPv4.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let wrong = || format!("\"{}\" is no address; write 10.20.1.4 or 2001:db8:20::4", shown(text));
    text.parse::<IpAddr>().map(|address| address.to_canonical()).map_err(|_| wrong())
}

/// Whether an address is this machine's own, mapped or not.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The name of a vault, credential, client or rule: it stands in logs, records and messages.
pub(super) fn name(text: &str) -> Result<(), String> {
    const LONGEST: usize = 128;
    if text.is_empty() || text.trim() != text {
        return Err("a name begins and ends with a visible character; change the name".into());
    }
    if text.chars().count() > LONGEST {
        return Err(format!("a name has at most {LONGEST} characters; shorten it"));
    }
    if text.chars().any(char::is_control) {
        return Err("a name holds no control characters; change the name".into());
    }
    if text == "*" {
        return Err("\"*\" stands for every client and is no name; change the name".into());
    }
    Ok(())
}

/// The name of an Azure DevOps organization, in lower case.
pub(super) fn organization(text: &str) -> Result<String, String> {
    const LONGEST: usize = 50;
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && !text.is_empty() && text.len() <= LONGEST && !text.starts_with('-') && !text.ends_with('-') {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "\"{}\" is no organization; write its name alone, such as contoso: letters, digits and hyphens",
        shown(text)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(u64::MAX / 1_000);

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("5m", 300), ("8h", 28_800), ("30d", 2_592_000)] {
            assert_eq!(duration(text, ANY), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms", ANY), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "5", "s", "5 m", " 5m", "-5m", "+5m", "1.5h", "5M", "5min", "1h30m", "99999999999999999999d"]
        {
            assert!(duration(text, ANY).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_out_of_range_names_the_range() {
        let range = Duration::from_secs(1)..=Duration::from_hours(1);
        let error = duration("2h", range).unwrap_err();
        assert_eq!(error, "2h is out of range; write a duration from 1s to 1h");
    }

    #[test]
    fn sizes_are_in_units_of_1024() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("2GiB", 2 << 30), ("1TiB", 1 << 40)] {
            assert_eq!(size(text, 0..=u64::MAX), Ok(bytes), "{text}");
        }
        for text in ["64KB", "64k", "64", "1.5GiB", "-1KiB", "99999999999TiB"] {
            assert!(size(text, 0..=u64::MAX).is_err(), "{text}");
        }
        let error = size("5MiB", 65_536..=1 << 20).unwrap_err();
        assert_eq!(error, "5MiB is out of range; write a size from 64KiB to 1MiB");
    }

    #[test]
    fn networks_are_canonical() {
        for (text, expected) in [
            ("10.20.0.0/16", "10.20.0.0/16"),
            ("10.20.1.4", "10.20.1.4/32"),
            ("2001:DB8:20::/48", "2001:db8:20::/48"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).map(|net| net.to_string()), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "10.20.0.0/33", "10.20.0/16", "10.20.0.1/16", "corp.example", "010.0.0.1", "10.0.0.0/8 "]
        {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_have_an_offset_and_dates_begin_in_utc() {
        assert_eq!(timestamp("2026-12-31").unwrap().to_string(), "2026-12-31T00:00:00Z");
        assert_eq!(timestamp("2026-12-31T18:00:00+02:00").unwrap().to_string(), "2026-12-31T16:00:00Z");
        for text in ["2026-12-31T18:00:00", "2026-13-31", "18:00:00", "soon"] {
            assert!(timestamp(text).is_err(), "{text}");
        }
    }

    #[test]
    fn organizations_are_plain_and_lower_case() {
        assert_eq!(organization("Contoso-2"), Ok("contoso-2".into()));
        for text in
            ["", "contoso/web", "contoso.visualstudio.com", "_git", "*", "-contoso", "contoso ", "cöntoso"]
        {
            assert!(organization(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_visible() {
        assert!(name("agents read web").is_ok());
        for text in ["", " a", "a ", "a\nb", "*"] {
            assert!(name(text).is_err(), "{text:?}");
        }
    }
}
