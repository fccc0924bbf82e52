//! Directories that are not this spool's, or not only.

use super::*;
use crate::frame::MAGIC;
use crate::header::HEADER_AREA;
use crate::{Finding, OpenError};

fn filled() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    append(&mut opened, 0..12);
    opened.spool.checkpoint(b"").unwrap();
    disk
}

fn refusal(disk: &MemoryDisk, options: Options) -> OpenError {
    Spool::open_on(std::sync::Arc::new(disk.clone()), options, None).unwrap_err()
}

#[test]
fn the_spool_of_another_link_is_refused_by_name_and_left_as_it_is() {
    let disk = filled();
    let before = disk.calls().len();
    let other = Options { identity: b"site/other".to_vec(), ..options() };
    let error = refusal(&disk, other.clone()).to_string();
    assert_eq!(
        error,
        "spool file /spool/checkpoint belongs to \"site/link\", this is \"site/other\"; give each link its own spool directory, or move the files away"
    );
    let mut state = disk.state();
    state.names.remove("checkpoint");
    let error = refusal(&MemoryDisk::of(state), other).to_string();
    assert!(error.contains("00000000000000000000.seg belongs to \"site/link\""), "{error}");
    assert_eq!(disk.calls().len(), before, "nothing was written");
    let binary = Options { identity: vec![0, 255], ..options() };
    assert!(refusal(&disk, binary).to_string().contains("this is 00ff;"));
}

#[test]
fn another_version_is_refused_by_its_number_and_left_as_it_is() {
    let disk = filled();
    for at in 0..disk.state().segments().len() {
        let mut state = disk.state();
        let name = state.segments()[at].clone();
        for copy in [0, 4096] {
            state.file(&name)[copy + 8..copy + 12].copy_from_slice(&7u32.to_be_bytes());
        }
        let disk = MemoryDisk::of(state);
        let error = refusal(&disk, options());
        assert!(matches!(error, OpenError::Version { version: 7, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&name) && text.contains("format version 7, this program knows 1"), "{text}");
        assert!(disk.calls().is_empty(), "nothing was written");
    }
    let mut state = disk.state();
    let checkpoint = state.file("checkpoint");
    checkpoint[11] = 2;
    let content = checkpoint.len() - 4;
    let check = crc32c::crc32c(&checkpoint[..content]).to_be_bytes();
    checkpoint[content..].copy_from_slice(&check);
    assert!(matches!(refusal(&MemoryDisk::of(state), options()), OpenError::Version { version: 2, .. }));
}

#[test]
fn strangers_are_named_and_left_alone() {
    let mut state = filled().state();
    let names = [
        "notes.txt",
        "0.seg",
        "99999999999999999999.seg",
        "00000000000000000000.seg.bak",
        "subdirectory/",
        "x\n",
    ];
    for name in names {
        state.add(name, b"mine".to_vec());
    }
    state.add("checkpoint.new", b"half".to_vec());
    let disk = MemoryDisk::of(state);
    let mut opened = open(&disk);
    let mut strangers: Vec<_> = opened
        .report
        .findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Stranger(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    strangers.sort_unstable();
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(strangers, expected);
    assert_eq!(opened.report.findings.len(), names.len());
    assert!(!opened.report.findings.iter().any(Finding::is_loss));
    assert!(
        opened.report.findings.iter().all(|finding| !finding.to_string().contains('\n')),
        "names are quoted"
    );
    for name in names {
        assert_eq!(disk.state().file(name), b"mine");
    }
    assert!(!disk.state().names.contains_key("checkpoint.new"));
    assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(0..12));
}

#[test]
fn a_directory_full_of_strangers_makes_no_endless_report() {
    let mut state = filled().state();
    for n in 0..1000 {
        state.add(&format!("stranger-{n}"), Vec::new());
    }
    let report = open(&MemoryDisk::of(state)).report;
    assert_eq!(
        (report.findings.len(), report.more_findings),
        (crate::MAX_FINDINGS, 1000 - crate::MAX_FINDINGS as u64)
    );
}

#[test]
fn files_that_only_look_like_segments_do_not_stop_the_spool() {
    let huge = |digits: u64| format!("{digits:020}.seg");
    let contents = [
        Vec::new(),
        vec![0; 50_000],
        b"hello".to_vec(),
        MAGIC.repeat(10_000),
        b"DDCSPOOL".repeat(2000),
        vec![0xff; HEADER_AREA as usize],
    ];
    for content in contents {
        for base in [1, 5000, 1 << 40, (1 << 62) - 1] {
            let mut state = filled().state();
            let name = huge(base);
            if state.names.contains_key(&name) {
                continue;
            }
            state.add(&name, content.clone());
            let disk = MemoryDisk::of(state);
            // "DDCSPOOL" again and again has some other version in both copies, which is refused; nothing else is.
            let opened = Spool::open_on(std::sync::Arc::new(disk.clone()), options(), None);
            let mut opened = match opened {
                Err(OpenError::Version { .. }) if content.starts_with(b"DDCSPOOL") => continue,
                opened => opened.unwrap(),
            };
            assert!(!opened.report.findings.is_empty(), "{name}");
            let there = numbers(&read_all(&mut opened.reader));
            assert!(there.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {there:?}");
            assert!(there.len() >= 6, "{name}: {there:?} {:?}", opened.report.findings);
            append(&mut opened, [77]);
            assert_eq!(numbers(&read_all(&mut opened.reader)), [77]);
        }
    }
}

#[test]
fn a_damaged_checkpoint_costs_only_reading_again() {
    let disk = MemoryDisk::default();
    let mut opened = open(&disk);
    let spans = append(&mut opened, 0..12);
    opened.spool.settle(spans[0]).unwrap();
    opened.spool.checkpoint(b"table").unwrap();
    drop(opened);
    let len = disk.state().file("checkpoint").len();
    for at in 0..len {
        let mut state = disk.state();
        state.file("checkpoint")[at] ^= 0x40;
        let mut opened = open(&MemoryDisk::of(state));
        assert_eq!(opened.report.findings, [Finding::CheckpointDamaged]);
        assert_eq!(numbers(&read_all(&mut opened.reader)), Vec::from_iter(0..12));
        assert!(opened.report.table.is_empty());
    }
}
