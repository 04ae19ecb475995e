//! `[audit]` and `[limits]`: numbers and their ranges.

use std::time::Duration;

use super::{Audit, Durability, Limits, disk::Base, parse::Fields, suggest, text::shown};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MILLISECOND: Duration = Duration::from_millis(1);

/// `[audit]`.
pub(super) fn audit(root: &Fields<'_>, base: &Base) -> Option<Audit> {
    const MIB: u64 = 1 << 20;
    let section =
        root.required("audit", "nothing runs without a record: write [audit] with folder = \"audit\"")?;
    let fields = section.table("write [audit] above its keys")?;
    let folder = fields.required("folder", "write folder = \"audit\"").and_then(|item| base.path(&item));
    let durability = fields.optional("durability").and_then(|item| match item.string()? {
        "disk" => Some(Durability::Disk),
        "os" => Some(Durability::Os),
        "memory" => Some(Durability::Memory),
        other => {
            let instead = suggest::instead(other, &["disk", "os", "memory"]);
            item.check(Err(format!("\"{}\" is no durability; {instead}", shown(other))))
        }
    });
    let size =
        |key, range, default| fields.optional(key).and_then(|item| item.size(range)).unwrap_or(default);
    let segment_size = size("segment-size", 64 << 10..=16 << 30, 256 * MIB);
    let reserve = size("reserve", 0..=1 << 40, 64 * MIB);
    let segment_age = fields.optional("segment-age").and_then(|item| item.duration(SECOND..=31 * DAY));
    fields.finish();
    Some(Audit {
        folder: folder?,
        durability: durability.unwrap_or(Durability::Disk),
        segment_size,
        segment_age: segment_age.unwrap_or(HOUR),
        reserve,
    })
}

/// `[limits]`.
pub(super) fn limits(root: &Fields<'_>) -> Limits {
    let mut limits = Limits::default();
    let section = root.optional("limits").and_then(|item| item.table("write [limits] above its keys"));
    let Some(fields) = section else { return limits };
    for (key, limit) in [
        ("connections", &mut limits.connections),
        ("connections-per-address", &mut limits.connections_per_address),
        ("in-flight", &mut limits.in_flight),
        ("in-flight-per-client", &mut limits.in_flight_per_client),
    ] {
        let count = fields.optional(key).and_then(|item| item.count(1..=1_000_000));
        if let Some(count) = count.and_then(|count| usize::try_from(count).ok()) {
            *limit = count;
        }
    }
    for (key, range, limit) in [
        ("handshake", MILLISECOND..=HOUR, &mut limits.handshake),
        ("head", MILLISECOND..=HOUR, &mut limits.head),
        ("body-idle", MILLISECOND..=DAY, &mut limits.body_idle),
        ("upstream-head", MILLISECOND..=DAY, &mut limits.upstream_head),
        ("write-idle", MILLISECOND..=DAY, &mut limits.write_idle),
        ("keep-alive", MILLISECOND..=DAY, &mut limits.keep_alive),
        ("drain-delay", Duration::ZERO..=HOUR, &mut limits.drain_delay),
        ("drain", Duration::ZERO..=7 * DAY, &mut limits.drain),
    ] {
        if let Some(duration) = fields.optional(key).and_then(|item| item.duration(range)) {
            *limit = duration;
        }
    }
    fields.finish();
    limits
}
