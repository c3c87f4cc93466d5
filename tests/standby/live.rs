//! Events as they happen, read from replicas.

use std::time::Duration;

use futures_util::TryStreamExt;
use sparc::service::{Operations, Sparc, events::NewEvent};
use testdb::Server;

use super::{Three, blocking, until};
use crate::world::World;

async fn send(sparc: &Sparc, who: uuid::Uuid, session: uuid::Uuid, kind: String) -> Option<uuid::Uuid> {
    let event = NewEvent { session_id: session, kind, ..Default::default() };
    sparc.as_user(who).events().send(event).await.ok().map(|event| event.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_hear_every_event_once_also_across_a_promotion() {
    let Some(three) = Three::start().await else { return };
    let sparc = three.sparc().await;
    let game = three.world.active_session(2).await;
    let (ada, morgan) = (game.players[0].id, game.players[1].id);
    let mut hearing = Vec::new();
    for who in [ada, morgan, game.seer.uuid()] {
        let mut events = sparc.as_user(who).events().subscribe(game.session, None).await.unwrap();
        hearing.push(tokio::spawn(async move {
            let mut heard = Vec::new();
            loop {
                let event = events.try_next().await.unwrap().unwrap();
                let is_last = event.event_type == "client.last";
                heard.push((event.seq, event.id));
                if is_last {
                    return heard;
                }
            }
        }));
    }
    let mut sent = Vec::new();
    for number in 0..60 {
        sent.extend(send(&sparc, ada, game.session, format!("wave{number}")).await);
    }
    // Until a standby has them: none is synchronous here.
    let lsn = super::written(&three.world).await;
    let copies: [World; 2] = three.copies().await.try_into().unwrap_or_else(|_| panic!("two"));
    for copy in &copies {
        super::until_replayed(copy, &lsn).await;
    }
    let standbys: [Server; 2] = three.standbys.clone().try_into().unwrap();
    blocking(&three.primary, |primary| primary.kill().unwrap()).await;
    blocking(&standbys[1], |standby| standby.promote().unwrap()).await;
    standbys[0].follow(&standbys[1]).await.unwrap();
    for number in 0..20 {
        sent.extend(send(&sparc, morgan, game.session, format!("later{number}")).await);
    }
    until(async || {
        let id = send(&sparc, ada, game.session, "last".to_owned()).await;
        sent.extend(id);
        id.is_some()
    })
    .await;
    for hearing in hearing {
        let heard = tokio::time::timeout(Duration::from_secs(20), hearing).await.unwrap().unwrap();
        assert!(heard.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, and each once");
        let missing: Vec<_> = sent.iter().filter(|id| !heard.iter().any(|(_, heard)| heard == *id)).collect();
        assert!(missing.is_empty(), "{} of {} are missing", missing.len(), sent.len());
    }
    sparc.close().await.unwrap();
}
