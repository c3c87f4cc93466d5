//! The log lines of the spans of the service's operations: they contain the operation's name, ids, outcome,
//! duration and number of retries, but neither personal data nor secrets.

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::json;
use sparc::{
    entity::sea_orm_active_enums::Attribute,
    service::{
        Difficulty, JoinCode, Operations, Sparc,
        adventures::{AdventureContent, NewAdventure},
        characters::NewCharacter,
        dice::{NewRoll, Roller},
        events::NewEvent,
        sessions::{LobbyFilter, NewSession},
        users::{NewAccount, ProfileChanges},
    },
};
use tracing_subscriber::fmt::format::FmtSpan;
use uuid::Uuid;

use crate::world::World;

/// Collects what a tracing subscriber writes.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn the_log_of_a_whole_session_has_ids_but_no_personal_data_or_secrets() {
    let world = World::new().await;
    let log = Log::default();
    // While only one subscriber exists, tracing lets the first thread that reaches a call site decide for all threads
    // whether the call site is enabled. That thread may belong to another test, which has no subscriber. As soon as a
    // second subscriber exists, tracing asks every subscriber, whichever thread comes first.
    let _second_subscriber = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // This pool logs statements, as SeaORM's pools do by default. While a pool is opened, SeaORM also logs the URL, so
    // this one is opened before the subscriber is set.
    let application_pool = sea_orm::Database::connect(world.url()).await.unwrap();
    let guard = tracing_subscriber::util::SubscriberInitExt::set_default(subscriber);
    let sparc = Sparc::connect(world.url()).await.unwrap();
    let sign_up = async |name: &str| {
        let account =
            NewAccount { email: Some(format!("{name}@secret.example")), display_name: Some(name.into()), id: None };
        let id = sparc.as_service().users().sign_up(account).await.unwrap().id;
        sparc.as_user(id)
    };
    let (seer, ada) = (sign_up("Morgana").await, sign_up("Adalbert").await);
    ada.users()
        .edit(ProfileChanges { bio: Some(Some("Lives in Nowhereton".into())), ..Default::default() })
        .await
        .unwrap();
    ada.users().my_email().await.unwrap();
    // Where an outcome is ignored, only what the call logs matters.
    let _ = sparc.as_service().users().by_email("adalbert@secret.example").await;
    let _ = sparc.as_anon().users().by_display_name("Adalbert").await;
    let hero = ada.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await.unwrap();
    let same_name = ada.characters().create(NewCharacter { name: "Brunhild".into(), ..Default::default() }).await;
    assert_eq!(same_name.unwrap_err().code(), "character_name_taken");
    let content = AdventureContent { start: Some("Nowhereton".into()), ..Default::default() };
    let draft = NewAdventure { name: "Nowhereton Nights".into(), content, ..Default::default() };
    let adventure = seer.adventures().create(draft).await.unwrap();
    let _ = seer.adventures().publish(adventure.id).await;
    let new_session =
        NewSession { adventure_id: adventure.id, looking_for: Some("Adalbert".into()), ..Default::default() };
    let session = seer.sessions().create(new_session).await.unwrap();
    let code: JoinCode = session.code.parse().unwrap();
    ada.sessions().by_code(&code).await.unwrap();
    ada.sessions().join(&code, hero.id).await.unwrap();
    seer.sessions().start(session.id).await.unwrap();
    let check = NewRoll::attribute_check(session.id, Roller::Character(hero.id), Attribute::Might, Difficulty::MIN);
    ada.dice().roll(NewRoll { description: Some("Brunhild prays".into()), ..check }).await.unwrap();
    let new_wave_event =
        NewEvent { session_id: session.id, kind: "wave".into(), payload: json!("Adalbert waves"), id: None };
    ada.events().send(new_wave_event).await.unwrap();
    let search = LobbyFilter { search: Some("Morgana".into()), ..Default::default() };
    sparc.as_anon().sessions().lobby(&search, None).await.unwrap();
    let _ = ada.sessions().start(Uuid::new_v4()).await;
    let _ = sparc.as_anon().characters().living().await;
    seer.sessions().complete(session.id).await.unwrap();
    ada.users().close_account(ada.user_id().unwrap()).await.unwrap();
    let application_sparc = Sparc::from_connection(application_pool);
    let claims = json!({ "role": "authenticated", "sub": seer.user_id().unwrap(), "email": "morgana@secret.example" });
    application_sparc.as_claims(claims).unwrap().users().me().await.unwrap();
    drop(guard);

    let log = log.text();
    for forbidden_text in [
        "postgres://",
        "secret.example",
        "Adalbert",
        "adalbert",
        "Morgana",
        "morgana",
        "Brunhild",
        "Nowhereton",
        code.as_str(),
    ] {
        let line = log.lines().find(|line| line.contains(forbidden_text));
        assert!(line.is_none(), "{forbidden_text} is in the log: {}", line.unwrap());
    }
    let is_logged = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    let (session_field, identity_field) =
        (format!("session={}", session.id), format!("identity={}", ada.user_id().unwrap()));
    assert!(
        is_logged(&[
            "dice.roll{",
            "sparc::operation: close",
            "operation=\"dice.roll\"",
            &session_field,
            &identity_field,
            "outcome=\"done\"",
            "retries=0",
            "duration_us="
        ]),
        "{log}"
    );
    assert!(is_logged(&["operation=\"characters.create\"", "outcome=\"character_name_taken\""]));
    assert!(is_logged(&["operation=\"characters.living\"", "identity=anon", "outcome=\"not_signed_in\""]));
    assert!(is_logged(&["operation=\"users.sign_up\"", "identity=service"]));
}
