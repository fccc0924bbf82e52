//! `[spool]`: where it lies, how large it gets, and where there is none.

use std::time::Duration;

use ddc_spool::{Fsync, WhenFull};

use super::*;

fn with_table(lines: &str) -> String {
    format!("{EGRESS}[spool]\n{lines}\n")
}

#[test]
fn it_is_there_by_default_and_says_what_it_takes() {
    let fixture = Fixture::new();
    let config = fixture.egress(EGRESS);
    let spool = config.spool.as_ref().unwrap();
    assert_eq!(spool.directory, PathBuf::from("/var/lib/ddc/plant-a/spool"));
    assert_eq!((spool.max_size, spool.max_age, spool.when_full), (None, None, WhenFull::DropNewest));
    assert_eq!(spool.fsync, Fsync::Interval(Duration::from_millis(100)));
    assert!(config.memory().iter().any(|item| item.purpose.contains("[spool]")));
    let size = spool.size(1 << 40).unwrap();
    let options = spool.options(&config.link, size, 5);
    assert_eq!(options.check(), Ok(()));
    assert_eq!((options.max_bytes, options.segment_bytes, options.tail_bytes), (10 << 30, 64 << 20, 5));
    assert_eq!(options.identity, b"link plant-a, id 1");
    assert_eq!(options.max_frame_bytes, 17 << 20, "the largest record, and room for its framing");

    let written = fixture.egress(&with_table(
        "directory = \"waiting\"\nmax_size = \"200GiB\"\nmax_age = \"259200s\"\nsegment_size = \"128MiB\"\nfsync = \"always\"\nwhen_full = \"drop_oldest\"",
    ));
    let spool = written.spool.unwrap();
    assert_eq!(spool.directory, fixture.directory.path().join("waiting"));
    assert_eq!(spool.size(1).unwrap().segment.bytes(), 128 << 20);
    assert_eq!(
        (spool.max_age, spool.fsync, spool.when_full),
        (Some(Duration::from_hours(72)), Fsync::Always, WhenFull::DropOldest)
    );
    let never = fixture.egress(&with_table("fsync = \"never\"\nfsync_interval = \"5ms\"")).spool.unwrap();
    assert_eq!(never.fsync, Fsync::Never);
}

#[test]
fn there_is_none_where_nothing_may_be_kept_or_need_be() {
    let fixture = Fixture::new();
    assert!(fixture.egress(&with_table("enabled = false")).spool.is_none());
    let unsealed = with(EGRESS, "[link]", "seal = \"none\"");
    assert!(fixture.egress(&unsealed).spool.is_none(), "what anyone can send must not fill a disk");
    let said = fixture.said("egress.toml", &format!("{unsealed}[spool]\nmax_size = \"1GiB\"\n"));
    assert!(said.contains("[spool] is not used: seal = \"none\""), "{said}");
    let udp = EGRESS.replace(
        "[sink.kafka]\nbrokers = [\"localhost:9092\"]",
        "[sink.udp]\nstreams = { a = \"127.0.0.1:9\" }",
    );
    assert!(fixture.egress(&udp).spool.is_none());
    assert!(!fixture.egress(&udp).memory().iter().any(|item| item.purpose.contains("[spool]")));
}

#[test]
fn what_is_wrong_in_it_is_named() {
    let fixture = Fixture::new();
    for (lines, said) in [
        ("max_size = \"60MiB\"", "`max_size` in [spool]: 60MiB is too small"),
        ("max_size = \"1GiB\"\nsegment_size = \"256MiB\"", "ok"),
        ("max_size = \"1023MiB\"\nsegment_size = \"256MiB\"", "at least 1GiB"),
        ("segment_size = \"1GiB\"", "it can be 64KiB to 256MiB"),
        ("fsync = \"sometimes\"", "fsync"),
        ("fsync_interval = \"2h\"", "it can be 1ms to 60s"),
        ("max_age = \"1s\"", "less than 10s"),
        ("when_full = \"drop_newst\"", "drop_newest"),
        ("max_sise = \"1GiB\"", "did you mean `max_size`"),
    ] {
        let answer = fixture.said("egress.toml", &with_table(lines));
        assert!(answer.contains(said), "{lines}: {answer}");
    }
    let large = format!("{EGRESS}[link.receive]\nmax_record_bytes = \"64MiB\"\n");
    let answer = fixture.said("egress.toml", &large);
    assert!(answer.contains("is more than a spool takes (63MiB)"), "{answer}");
    assert_eq!(fixture.said("egress.toml", &format!("{large}[spool]\nenabled = false\n")), "ok");
}

#[test]
fn two_links_never_share_one() {
    let fixture = Fixture::new();
    let other = |spool: &str| {
        let other = EGRESS.replace("plant-a", "plant-b").replace("id = 1\nlisten", "id = 2\nlisten");
        format!("{}[spool]\ndirectory = \"{spool}\"\n", other.replace(":7401", ":7402"))
    };
    let clashes = |a: &str, b: &str| {
        let load = |name: &str, text: &str| {
            let mut loaded = fixture.parse(name, text).unwrap();
            loaded.file = PathBuf::from(name);
            loaded
        };
        check_together(&[load("a.toml", a), load("b.toml", b)])
    };
    assert_eq!(clashes(&with_table("directory = \"x\""), &other("y")), Vec::<String>::new());
    let said = clashes(&with_table("directory = \"x\""), &other("./x"));
    assert!(said.len() == 1 && said[0].starts_with("b.toml: [spool] directory = "), "{said:?}");
    let said = clashes(EGRESS, &other("/var/lib/ddc/plant-a/spool"));
    assert_eq!(said.len(), 1, "the default is a directory too: {said:?}");
}
