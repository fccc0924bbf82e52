//! What each kind of fault does to the world. Each ends with the world whole again.

use std::thread;
use std::time::Duration;

use super::plan::{Fault, Kind};
use super::relay::Weather;
use super::world::{GROWING, REBORN, World};
use crate::broker::Broker;
use crate::proxy::{Proxy, Signal, TomlValue};
use crate::wait;

/// A topic has no more partitions than this.
const MOST_PARTITIONS: u32 = 32;
/// A side has read its configuration again by then.
const RELOADED: Duration = Duration::from_secs(40);
/// What the egress delivered so long before a crash it may not remember: positions are stored each second, on a busy machine.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// How late a delivery may be seen by the tail that stamps it.
const SEEN_LATE: Duration = Duration::from_secs(15);

/// How a fault went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Struck {
    /// As planned; what else is to be said of it.
    Done(String),
    /// This machine cannot do it, and why.
    Skipped(String),
}

/// Strikes, lasts, and heals.
pub fn strike(world: &mut World, fault: &Fault) -> Struck {
    let hold = || thread::sleep(fault.hold);
    let mut said = String::new();
    match fault.kind {
        Kind::IngressKilled => {
            world.ingress.take().expect("it is up").kill();
            hold();
            start_ingress(world);
        }
        Kind::EgressKilled => {
            let from = world.now().saturating_sub(FORGOTTEN);
            world.egress.take().expect("it is up").kill();
            hold();
            start_egress(world);
            world.crashes.push((from, world.now() + SEEN_LATE));
        }
        Kind::IngressFrozen => freeze(world.ingress(), hold),
        Kind::EgressFrozen => freeze(world.egress(), hold),
        Kind::IngressRestarted => {
            said = format!("drained in {:.1?}", world.ingress.take().expect("it is up").stop());
            hold();
            start_ingress(world);
        }
        Kind::EgressRestarted => {
            said = format!("drained in {:.1?}", world.egress.take().expect("it is up").stop());
            hold();
            start_egress(world);
        }
        Kind::SourceKilled => broker(&world.source, Broker::kill, hold),
        Kind::DestinationKilled => broker(&world.destination, Broker::kill, hold),
        Kind::SourceRestarted => broker(&world.source, Broker::stop, hold),
        Kind::DestinationRestarted => broker(&world.destination, Broker::stop, hold),
        Kind::SourceFrozen => freeze_broker(&world.source, hold),
        Kind::DestinationFrozen => freeze_broker(&world.destination, hold),
        Kind::DiskFilled => match &world.disk {
            Ok(disk) => {
                disk.fill();
                hold();
                disk.empty();
            }
            Err(why) => return Struck::Skipped(why.clone()),
        },
        Kind::KeyRolled => said = roll_key(world, hold),
        Kind::IngressClockBack | Kind::EgressClockBack => return set_clock_back(world, fault),
        Kind::PartitionsAdded => said = add_partition(world),
        Kind::TopicRecreated => {
            world.end_life(REBORN);
            hold();
            world.give_life(REBORN);
            said = format!("life {} begins", world.topics[REBORN].life);
        }
        weather => {
            world.relay.set(weather_of(fault));
            hold();
            world.relay.set(Weather::default());
            weather.what().clone_into(&mut said);
        }
    }
    Struck::Done(said)
}

/// What the link is like during this fault.
pub fn weather_of(fault: &Fault) -> Weather {
    let (percent, span) = (fault.strength * 10_000, Duration::from_millis(u64::from(fault.strength)));
    let fair = Weather::default();
    match fault.kind {
        Kind::DatagramsDropped => Weather { drop: percent, ..fair },
        Kind::LinkCut => Weather { drop: 1_000_000, ..fair },
        Kind::DatagramsDelayed => Weather { delay: span, ..fair },
        Kind::DatagramsReordered => Weather { jitter: span, ..fair },
        Kind::DatagramsDuplicated => Weather { duplicate: percent, echo: Duration::from_millis(300), ..fair },
        _ => fair,
    }
}

fn start_ingress(world: &mut World) {
    let ingress = world.link.start_ingress();
    ingress.wait_ready();
    world.ingress = Some(ingress);
}

fn start_egress(world: &mut World) {
    let egress = world.link.start_egress();
    egress.wait_ready();
    world.egress = Some(egress);
}

fn freeze(proxy: &Proxy, hold: impl FnOnce()) {
    proxy.signal(Signal::STOP);
    hold();
    proxy.signal(Signal::CONT);
}

fn broker(broker: &Broker, end: impl FnOnce(&Broker), hold: impl FnOnce()) {
    end(broker);
    hold();
    broker.restart();
}

fn freeze_broker(broker: &Broker, hold: impl FnOnce()) {
    broker.signal(Signal::STOP);
    hold();
    broker.signal(Signal::CONT);
    broker.wait_ready();
}

/// In the order that docs/configuration.md gives: the new key at the egress, at the ingress and active there, the old one away.
fn roll_key(world: &mut World, hold: impl FnOnce()) -> String {
    let (old, new) = (world.key, world.key + 1);
    let (code, out, errors) = world.link.command(["keygen", "--out", &file(new)]);
    assert_eq!(code, 0, "ddc keygen: {out}{errors}");
    let keys = |numbers: &[u8]| numbers.iter().map(|number| key(*number)).collect::<Vec<_>>();
    world.link.egress.set("link.keys", keys(&[old, new]));
    reload(world, true, false);
    world.link.ingress.set("link.keys", keys(&[old, new])).set("link.active_key", i64::from(new));
    reload(world, false, true);
    hold();
    world.link.egress.set("link.keys", keys(&[new]));
    world.link.ingress.set("link.keys", keys(&[new]));
    reload(world, true, true);
    world.key = new;
    format!("key {old} gives way to key {new}")
}

fn file(number: u8) -> String {
    // The first one is the link's from the begin.
    if number == 1 { "link.key".to_owned() } else { format!("link-{number}.key") }
}

fn key(number: u8) -> TomlValue {
    let mut key = toml::Table::new();
    key.insert("id".to_owned(), i64::from(number).into());
    key.insert("file".to_owned(), file(number).into());
    TomlValue::Table(key)
}

/// SIGHUP, and until the side says that it has read its file.
fn reload(world: &World, egress: bool, ingress: bool) {
    world.link.write();
    let sides = [(egress, world.egress()), (ingress, world.ingress())];
    for proxy in sides.into_iter().filter_map(|(wanted, proxy)| wanted.then_some(proxy)) {
        let read = |what: &str| proxy.log().matches(what).count();
        let before = read("configuration read again: ");
        proxy.signal(Signal::HUP);
        wait::until_true("the configuration is read again", RELOADED, || {
            assert_eq!(read("configuration read again and refused"), 0, "{}", proxy.log());
            read("configuration read again: ") > before
        });
    }
}

fn set_clock_back(world: &mut World, fault: &Fault) -> Struck {
    let side = if fault.kind == Kind::IngressClockBack { "ingress" } else { "egress" };
    let Ok(clocks) = &world.clocks else {
        return Struck::Skipped(world.clocks.as_ref().err().cloned().unwrap_or_default());
    };
    clocks.set(side, fault.strength);
    thread::sleep(fault.hold / 2);
    let restarts = fault.chance.is_multiple_of(2);
    match (restarts, side) {
        (false, _) => {}
        (true, "ingress") => {
            world.ingress.take().expect("it is up").stop();
            start_ingress(world);
        }
        (true, _) => {
            world.egress.take().expect("it is up").stop();
            start_egress(world);
        }
    }
    thread::sleep(fault.hold / 2);
    if let Ok(clocks) = &world.clocks {
        clocks.set(side, 0);
    }
    let also = if restarts { ", restarted meanwhile" } else { "" };
    Struck::Done(format!("by {} s{also}", fault.strength))
}

fn add_partition(world: &mut World) -> String {
    let topic = &mut world.topics[GROWING];
    if topic.partitions >= MOST_PARTITIONS {
        return format!("it has {MOST_PARTITIONS} already");
    }
    topic.partitions += 1;
    world.cluster.add_partitions(&topic.name, topic.partitions);
    if let Some(stream) = &topic.stream {
        stream.widen(topic.partitions);
    }
    format!("{} partitions", topic.partitions)
}
