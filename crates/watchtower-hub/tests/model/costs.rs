//! What one client can cost the others.

use watchtower_hub::{Content, Publish};

use crate::support::{Client, NOW, five, hub, text};

#[test]
fn one_connection_may_register_and_join_very_many_senders() {
    // With a search among the others for each it would be minutes.
    const SENDERS: u32 = 100_000;
    let hub = hub();
    let gateway = Client::new(&hub);
    let ids: Vec<_> = (0..SENDERS).map(|_| gateway.session.register(NOW).unwrap()).collect();
    for &id in &ids {
        gateway.session.join(id, &five(), NOW).unwrap();
    }
    let receivers = [ids[7].get()];
    hub.publish(&five(), text(ids[0], "to one").to(&receivers), NOW).unwrap();
    assert_eq!(gateway.read(), "5/1=to one;");
    for &id in &ids[1..] {
        hub.leave(id, &five(), NOW).unwrap();
    }
    hub.publish(&five(), Publish::new(Content::text("to all")), NOW).unwrap();
    assert_eq!(gateway.read(), "5/2=to all;");
    drop(gateway);
    assert_eq!(hub.counts().subscriptions, 0);
}
