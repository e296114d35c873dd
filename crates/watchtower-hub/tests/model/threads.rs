//! Everything at once, from several threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use watchtower_hub::{Content, Limits, Publish, Settings, WhenLagging};

use crate::support::{Client, Counted, NOW, hub_with, later};

#[test]
fn publishing_reading_moving_and_leaving_at_once_ends_and_leaves_nothing_in_memory() {
    const CHANNELS: u32 = 24;
    let limits = Limits { lag_bytes: 4_096, ..Limits::default() };
    let hub = hub_with(Settings { limits, ..Settings::default() });
    let live = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = [WhenLagging::Close, WhenLagging::Skip, WhenLagging::Skip]
        .into_iter()
        .map(|when_lagging| Client { session: hub.open("test", when_lagging), wakes: Arc::default() })
        .collect();
    let ids: Vec<_> = (0..6).map(|_| hub.register(NOW).unwrap()).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..2u32)
            .map(|thread| {
                let (hub, live, ids) = (&hub, &live, &ids);
                scope.spawn(move || {
                    for turn in 0..10_000u32 {
                        let content = Content::binary(Bytes::from_owner(Counted::new(live)));
                        let receivers = [ids[turn as usize % ids.len()].get()];
                        let message = Publish::new(content);
                        let message = if turn % 3 == 0 { message.to(&receivers) } else { message };
                        // A receiver may have left.
                        let _ = hub.publish(&((turn + thread) % CHANNELS).into(), message, NOW);
                    }
                })
            })
            .collect();
        for client in &clients[..2] {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // What lags goes on under its next driver.
                    let _ = client.drain(500);
                    if client.session.is_lagging() {
                        client.session.suspend();
                        client.session.resume(WhenLagging::Close);
                    }
                }
            });
        }
        scope.spawn(|| {
            for turn in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let (id, client) = (ids[turn % ids.len()], &clients[turn / 2 % clients.len()]);
                let channel = (turn as u32 % CHANNELS).into();
                let _ = client.session.join(id, &channel, NOW);
                if turn % 7 == 0 {
                    client.session.unsubscribe(id, &channel, NOW);
                }
            }
        });
        for publisher in publishers {
            publisher.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    drop(clients);
    hub.tick(later(120));
    assert_eq!((hub.counts().subscriptions, live.load(Ordering::Relaxed)), (0, 0));
}
