//! Space ahead of the records: what a crash may leave in it, and what is somebody's doing.

use std::{fs, path::PathBuf};

use super::*;
use crate::audit::{
    chain::Position,
    disk::Local,
    frame::{FRAME, HEADER},
    journal::{Journal, Rotation},
};

const SECTOR: usize = 512;

/// A chain whose last segment holds these batches, each of records with payloads of these sizes, and
/// space behind. Its writer "died".
struct Died {
    folder: tempfile::TempDir,
    segment: PathBuf,
    /// The file.
    bytes: Vec<u8>,
    /// Where each record begins, and the last ends.
    places: Vec<usize>,
    /// Where each batch begins, and the last ends.
    batches: Vec<usize>,
}

fn died(batches: &[&[usize]]) -> Died {
    let folder = tempfile::tempdir().unwrap();
    let chain = chain::path(folder.path(), 1);
    disk::make_folder(&chain).unwrap();
    let rotation = Rotation { size: 1 << 30, age: Duration::from_hours(1) };
    let mut journal =
        Journal::new(Box::new(Local), chain.clone(), [7; 16], rotation, (0, Position::default()));
    let mut places = vec![HEADER];
    let mut starts = vec![HEADER];
    for sizes in batches {
        journal.prepare().unwrap();
        for size in *sizes {
            let opening = r#"{"v":1,"kind":"x","pad":""#;
            let payload = format!("{opening}{:x>pad$}\"}}", "", pad = size - opening.len() - 2);
            journal.append(payload.as_bytes());
            places.push(places.last().unwrap() + FRAME + size);
        }
        journal.commit(true).unwrap();
        journal.make_space();
        starts.push(*places.last().unwrap());
    }
    let segment = chain::segment(&chain, 1);
    let bytes = fs::read(&segment).unwrap();
    Died { folder, segment, bytes, places, batches: starts }
}

impl Died {
    fn verdict(&self, bytes: &[u8]) -> Verdict {
        let _ = fs::remove_file(chain::segment(&chain::path(self.folder.path(), 1), 2));
        fs::write(&self.segment, bytes).unwrap();
        verdict(self.folder.path())
    }

    /// How many of its records are there after the next start.
    fn mended(&self, bytes: &[u8]) -> usize {
        let _ = fs::remove_file(chain::segment(&chain::path(self.folder.path(), 1), 2));
        fs::write(&self.segment, bytes).unwrap();
        Audit::open(&config(self.folder.path()), false).unwrap().close(CLOSE);
        assert_eq!(verdict(self.folder.path()), Verdict::Intact);
        of(&records(self.folder.path()), "x").len()
    }
}

const BATCHES: &[&[usize]] = &[&[100, 200], &[150], &[90, 3000, 256, 1500, 700]];

#[test]
fn space_is_the_end_of_a_segment_and_gone_after_the_next_start() {
    let died = died(BATCHES);
    let end = *died.places.last().unwrap();
    assert!(died.bytes.len() >= end + 4096 && died.bytes[end..].iter().all(|byte| *byte == 0));
    // Whatever the death left of the space that was being made.
    for length in [end, end + 1, end + 3, end + 4, end + 7, end + 8, end + 4095, died.bytes.len()] {
        assert_eq!(died.verdict(&died.bytes[..length]), Verdict::Intact, "{length}");
        assert_eq!(died.mended(&died.bytes[..length]), 8);
        assert_eq!(fs::metadata(&died.segment).unwrap().len(), end as u64);
        assert!(of(&records(died.folder.path()), "recovered").is_empty());
    }
}

#[test]
fn a_batch_that_broke_off_within_space_is_torn_at_any_byte() {
    let died = died(BATCHES);
    for length in died.batches[2]..*died.places.last().unwrap() {
        let mut bytes = died.bytes.clone();
        bytes[length..].fill(0);
        let found = died.verdict(&bytes);
        let place = *died.places.iter().rfind(|place| **place <= length).unwrap();
        // The first byte of a length may be zero.
        if died.bytes[place..length].iter().all(|byte| *byte == 0) {
            assert_eq!(found, Verdict::Intact, "{length}");
        } else {
            assert!(matches!(found, Verdict::Torn { .. }), "{length}: {found:?}");
        }
    }
}

#[test]
fn a_batch_that_lost_any_of_its_sectors_is_torn_and_the_ones_before_it_stay() {
    let died = died(BATCHES);
    let (start, end) = (died.batches[2], died.batches[3]);
    let sectors = start / SECTOR..=(end - 1) / SECTOR;
    let count = sectors.clone().count();
    assert!(count > 10);
    // A mask of the sectors that were lost: each alone, each kept alone, and a mixture.
    let alone = (0..count).map(|n| 1_u32 << n);
    let masks = alone
        .clone()
        .chain(alone.map(|mask| !mask))
        .chain((0..200).map(|n: u32| n.wrapping_mul(2_654_435_761)));
    for mask in masks {
        let mut bytes = died.bytes.clone();
        for (n, sector) in sectors.clone().enumerate() {
            if mask & (1 << n) != 0 {
                bytes[(sector * SECTOR).max(start)..((sector + 1) * SECTOR).min(end)].fill(0);
            }
        }
        let found = died.verdict(&bytes);
        assert!(matches!(found, Verdict::Torn { .. } | Verdict::Intact), "{mask:b}: {found:?}");
        assert_eq!(
            found == Verdict::Intact,
            bytes[start..].iter().all(|byte| *byte == 0) || bytes == died.bytes
        );
        if mask.is_power_of_two() {
            let lost = (sectors.start() + mask.trailing_zeros() as usize) * SECTOR;
            let whole = died.places.iter().filter(|place| **place <= lost.max(start)).count() - 1;
            assert_eq!(died.mended(&bytes), whole, "{mask:b}");
        }
    }
}

#[test]
fn what_is_missing_before_a_later_batch_is_an_alteration() {
    let died = died(&[&[100, 200], &[900, 900, 1500], &[90, 700]]);
    for sector in 1..died.batches[2] / SECTOR {
        let mut bytes = died.bytes.clone();
        bytes[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
        let found = died.verdict(&bytes);
        assert!(matches!(found, Verdict::Altered { .. }), "{sector}: {found:?}");
    }
    // And so is space with something behind it that patgate never makes.
    let mut bytes = died.bytes.clone();
    bytes.resize(bytes.len() + 33 * 1024 * 1024, 0);
    let found = died.verdict(&bytes);
    assert!(matches!(found, Verdict::Altered { .. }), "{found:?}");
}

#[test]
fn a_flip_of_any_byte_before_space_is_an_alteration() {
    let died = died(&[&[100, 200], &[150], &[90, 600, 70]]);
    for at in 0..*died.places.last().unwrap() {
        for mask in [0x01, 0x80, 0xff] {
            let mut bytes = died.bytes.clone();
            bytes[at] ^= mask;
            let found = died.verdict(&bytes);
            assert!(matches!(found, Verdict::Altered { .. }), "{at} ^ {mask}: {found:?}");
        }
    }
}

#[test]
fn a_segment_that_lost_its_header_is_unbegun_only_in_its_first_batch() {
    for (batches, torn) in
        [(&[&[100_usize, 900] as &[_]] as &[&[_]], true), (&[&[100], &[900], &[90]], false)]
    {
        let died = died(batches);
        let mut bytes = died.bytes.clone();
        bytes[..SECTOR].fill(0);
        let found = died.verdict(&bytes);
        assert_eq!(matches!(found, Verdict::Torn { offset: 0, .. }), torn, "{found:?}");
        assert_eq!(matches!(found, Verdict::Altered { .. }), !torn, "{found:?}");
        if torn {
            assert_eq!(died.mended(&bytes), 0);
        }
    }
}

#[test]
fn a_segment_that_is_closed_has_no_space() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.segment_size = 64 * 1024;
    let (audit, plan) = flaky(&config);
    run(async {
        let lane = audit.lane(&metrics());
        for _ in 0..400 {
            used(&lane).await.end(Ending::Complete);
        }
    });
    audit.close(CLOSE);
    assert!(plan.lock().unwrap().spaces > 3);
    let segments = chain::segments(&chain::path(folder.path(), 1)).unwrap();
    assert!(segments.len() > 2);
    for (_, path) in &segments {
        assert_eq!(fs::read(path).unwrap().last(), Some(&b'}'), "{}", path.display());
    }
    assert_eq!(verdict(folder.path()), Verdict::Intact);
    let (_, path) = &segments[0];
    let mut bytes = fs::read(path).unwrap();
    bytes.push(0);
    fs::write(path, bytes).unwrap();
    assert!(matches!(verdict(folder.path()), Verdict::Altered { .. }));
}

#[test]
fn a_disk_without_space_ahead_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let (audit, plan) = flaky(&config(folder.path()));
    run(async {
        let lane = audit.lane(&metrics());
        plan.lock().unwrap().failing_spaces = 1;
        for _ in 0..200 {
            used(&lane).await.end(Ending::Complete);
        }
    });
    assert_eq!((audit.statistics().failures, plan.lock().unwrap().spaces), (0, 1));
    let path = chain::segment(audit.folder(), 1);
    assert_eq!(fs::read(path).unwrap().last(), Some(&b'}'), "what space there was is given back");
    audit.close(CLOSE);
    assert_eq!(of(&records(folder.path()), "outcome").len(), 200);
    assert_eq!(verdict(folder.path()), Verdict::Intact);
}

#[test]
fn who_reads_while_it_is_written_sees_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.segment_size = 256 * 1024;
    let audit = Audit::open(&config, false).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            run(async {
                let lane = audit.lane(&metrics());
                for _ in 0..100 {
                    let uses = (0..50).map(|_| {
                        let lane = Rc::clone(&lane);
                        tokio::task::spawn_local(async move { used(&lane).await.end(Ending::Complete) })
                    });
                    for used in uses.collect::<Vec<_>>() {
                        used.await.unwrap();
                    }
                }
            });
        });
        let mut tail = tail::Tail::new(folder.path(), tail::Form::Json);
        let mut shown = Vec::new();
        while !writer.is_finished() {
            assert_eq!(verdict(folder.path()), Verdict::Intact);
            tail.more(&mut shown).unwrap();
        }
        tail.more(&mut shown).unwrap();
        let (all, mut seen) = (records(folder.path()), 0);
        for line in shown.split_inclusive(|byte| *byte == b'\n') {
            let record: Value = serde_json::from_slice(line).unwrap();
            seen += 1;
            assert_eq!(record["seq"], seen);
        }
        assert!(seen >= 10_000 - 50 && seen <= all.len() as u64, "{seen}");
        assert!(tail.unreadable().is_empty());
    });
    audit.close(CLOSE);
}
