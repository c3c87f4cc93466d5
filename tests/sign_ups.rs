//! Sign-ups with an e-mail address that is taken, and sign-ups that are repeated with the same id after the account has
//! changed. For each sign-up by the service, the database keeps a digest of the request in `private.request_digests`,
//! so that it can recognize a repetition. *The platform* is Supabase, whose Auth server writes `auth.users`; in these
//! tests, the schema's owner runs the Auth server's statements.

use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use sparc::service::{
    Operations,
    users::{NewAccount, ProfileChanges},
};
use uuid::Uuid;

use crate::{idempotency::assert_id_conflict, world::World};

#[tokio::test]
async fn a_repeated_sign_up_is_recognized_after_the_account_has_changed() {
    let world = World::new().await;
    let (service, owner) = (world.sparc.as_service(), world.owner());
    let sign_up = |request: &NewAccount| service.users().sign_up(request.clone());
    let new_request = |email: Option<&str>, name: Option<&str>| NewAccount {
        id: Some(Uuid::new_v4()),
        email: email.map(Into::into),
        display_name: name.map(Into::into),
    };
    let requests = [
        new_request(Some("a@x.org"), Some("Ada")),
        new_request(Some("b@x.org"), None),
        new_request(None, Some("Ben")),
        new_request(None, None),
    ];
    for request in requests {
        let id = sign_up(&request).await.unwrap().id;
        let rename = ProfileChanges { display_name: Some("Edited".into()), ..Default::default() };
        world.sparc.as_user(id).users().edit(rename).await.unwrap();
        assert_eq!(sign_up(&request).await.unwrap().display_name, "Edited");
        assert_id_conflict(
            "a request with the display name as edited",
            sign_up(&NewAccount { display_name: Some("Edited".into()), ..request.clone() }).await,
        );

        // The platform changes the e-mail address and the metadata.
        let new_email = format!("{id}@new.org");
        let change_by_platform = format!(
            "UPDATE auth.users
             SET email = '{new_email}', raw_user_meta_data = '{{\"display_name\": \"Anna\"}}'
             WHERE id = '{id}'"
        );
        owner.execute(&change_by_platform).await.unwrap();
        assert_eq!(sign_up(&request).await.unwrap().id, id);
        for changed_request in [
            NewAccount { email: Some(new_email.clone()), display_name: Some("Anna".into()), ..request.clone() },
            NewAccount { email: Some(new_email), ..request.clone() },
            NewAccount { display_name: Some("Anna".into()), ..request.clone() },
        ] {
            assert_id_conflict("a request with data as the platform changed it", sign_up(&changed_request).await);
        }

        // Repetitions and conflicts are recognized in a caller's transaction too.
        let tx = service.begin().await.unwrap();
        assert_eq!(tx.users().sign_up(request.clone()).await.unwrap().id, id);
        tx.commit().await.unwrap();
        let tx = service.begin().await.unwrap();
        let other_request = NewAccount { email: Some("other@x.org".into()), ..request.clone() };
        assert_id_conflict("another e-mail address", tx.users().sign_up(other_request.clone()).await);
        tx.rollback().await.unwrap();

        service.users().close_account(id).await.unwrap();
        assert_id_conflict("the first request, but the account is closed", sign_up(&request).await);
        assert_id_conflict(
            "a request without data, but the account is closed",
            sign_up(&NewAccount { id: Some(id), ..Default::default() }).await,
        );
        assert_eq!(service.users().profile(id).await.unwrap().display_name, "Former player");
        assert_eq!(
            owner.count("private.request_digests").await,
            0,
            "a closed account must leave no digest of its personal data"
        );

        // Once the platform has deleted the account, a different request with the same id creates a new account.
        owner.execute(&format!("DELETE FROM auth.users WHERE id = '{id}'")).await.unwrap();
        sign_up(&other_request).await.unwrap();
        assert!(sign_up(&other_request).await.is_ok());
        assert_id_conflict("the request of the deleted account", sign_up(&request).await);
        owner.execute(&format!("DELETE FROM auth.users WHERE id = '{id}'")).await.unwrap();
        assert_eq!(owner.count("private.request_digests").await, 0, "a deleted account must leave no digest");
    }
}

#[tokio::test]
async fn an_account_that_the_platform_created_has_no_digest_and_only_the_service_may_compare_digests() {
    let world = World::new().await;
    let service = world.sparc.as_service();
    let id = world.new_account().await;
    let same_data = NewAccount { id: Some(id), email: Some(format!("{id}@example.org")), display_name: None };
    assert_id_conflict(
        "the data of the account, but the platform created it",
        service.users().sign_up(same_data).await,
    );
    assert_eq!(world.owner().count("private.request_digests WHERE relation = 'users'").await, 0);

    // Only the service may compare a request with the digest. Otherwise anybody could test guesses about the data of an
    // account.
    let (email, id) = ("eve@x.org", Uuid::new_v4());
    let account = NewAccount { id: Some(id), email: Some(email.into()), display_name: None };
    service.users().sign_up(account).await.unwrap();
    let compare_with_digest = format!(
        "SELECT private.is_same_request('users', \
           jsonb_build_object('id', '{id}', 'email', '{email}', 'raw_user_meta_data', '{{}}'::jsonb))"
    );
    let answer_to_service = world.service().fetch_value::<bool>(&compare_with_digest).await;
    assert_eq!(answer_to_service, Ok(true));
    // The digest of a sign-up by the service is stored with `requested_by` NULL. This transaction sets no claims, so
    // its caller's id is NULL too. The caller differs from the service only in the role, and that must make the answer
    // false.
    let tx = world.owner().begin().await;
    tx.execute_unprepared("SET LOCAL ROLE authenticated").await.unwrap();
    let row =
        tx.query_one_raw(Statement::from_string(DbBackend::Postgres, compare_with_digest)).await.unwrap().unwrap();
    assert!(!row.try_get_by_index::<bool>(0).unwrap(), "a user must not learn whether the guess is right");
}

#[tokio::test]
async fn only_the_service_learns_whether_an_email_address_is_taken() {
    let world = World::new().await;
    let service = world.sparc.as_service();
    let email = format!("ada.{}@example.org", Uuid::new_v4().simple());
    assert!(!service.users().is_email_taken(&email).await.unwrap());
    let account = NewAccount { email: Some(email.clone()), ..Default::default() };
    let ada = service.users().sign_up(account.clone()).await.unwrap();
    assert!(service.users().is_email_taken(&email).await.unwrap());
    assert!(service.users().is_email_taken(&email.to_uppercase()).await.unwrap());
    // Only the database assigns addresses in the domain `no-email.invalid`. A sign-up ignores such an address, so
    // `is_email_taken` returns true for it.
    assert!(service.users().is_email_taken("x@no-email.invalid").await.unwrap());
    // A second sign-up with Ada's address succeeds, but the new profile gets an address that is made of its own id.
    let second_account = service.users().sign_up(account).await.unwrap();
    let address = world.sparc.as_user(second_account.id).users().my_email().await.unwrap();
    assert_eq!(address, format!("{}@no-email.invalid", second_account.id));
    let error = world.sparc.as_user(ada.id).users().is_email_taken(&email).await.unwrap_err();
    assert_eq!(error.to_string(), "not allowed: only the service may ask whether an e-mail address is taken");
}
