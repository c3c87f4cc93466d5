//! Privileges and row-level security: who may read and write which columns of a profile and of tutorial progress, and
//! whose rows a user may change. Also: closing an account, and a request for very many profiles.

use sparc::service::{
    Error, Operations,
    characters::NewCharacter,
    users::{Badge, NewAccount, ProfileChanges},
};
use uuid::Uuid;

use crate::{sqlstates::CHECK_VIOLATION, world::World};

#[tokio::test]
async fn visitors_and_users_cannot_read_the_email_column() {
    let world = World::new().await;
    let user = world.new_user().await;
    for caller in [&world.visitor(), &user] {
        for sql in ["SELECT email FROM users", "SELECT * FROM users", "SELECT FROM users WHERE email LIKE '%'"] {
            assert_refused!(caller.execute(sql).await, forbidden, "{sql}");
        }
        let select_other_columns =
            "SELECT id, display_name, avatar_url, bio, is_verified, games_played, games_run, created_at,
                               updated_at
                             FROM users";
        assert_eq!(caller.execute(select_other_columns).await, Ok(1));
    }
    assert_eq!(world.service().count("users WHERE email LIKE '%@example.org'").await, 1);
}

#[tokio::test]
async fn users_can_read_their_own_email_address() {
    let world = World::new().await;
    let user = world.new_user().await;
    let address = user.fetch_value::<String>("SELECT private.my_email()").await.unwrap();
    assert_eq!(address, format!("{}@example.org", user.user_id()));
    assert_refused!(world.visitor().execute("SELECT private.my_email()").await, forbidden);
}

#[tokio::test]
async fn users_edit_three_columns_of_their_own_profile_and_nothing_else() {
    let world = World::new().await;
    let (user, other_user) = (world.new_user().await, world.new_user().await);
    for change in ["display_name = 'New'", "avatar_url = 'https://x.org/me.png'", "bio = 'y'"] {
        assert_eq!(
            user.execute(&format!("UPDATE users SET {change}")).await,
            Ok(1),
            "the change must apply to the user's own row only: {change}"
        );
    }
    for change in [
        "is_verified = true",
        "games_played = 99",
        "games_run = 99",
        "email = 'x@y.z'",
        "created_at = now()",
        "updated_at = now()",
        "id = gen_random_uuid()",
    ] {
        assert_refused!(user.execute(&format!("UPDATE users SET {change}")).await, forbidden, "{change}");
    }
    let update_other_profile = format!("UPDATE users SET bio = 'hacked' WHERE id = '{}'", other_user.user_id());
    assert_eq!(user.execute(&update_other_profile).await, Ok(0));
    assert_refused!(user.execute("DELETE FROM users").await, forbidden);
    let insert_profile = "INSERT INTO users (id, email, display_name) VALUES (gen_random_uuid(), 'a', 'b')";
    assert_refused!(user.execute(insert_profile).await, forbidden);
}

#[tokio::test]
async fn an_update_sets_updated_at() {
    let world = World::new().await;
    let user = world.new_user().await;
    let select_was_updated = "SELECT updated_at > created_at FROM users";
    assert_eq!(user.fetch_value::<bool>(select_was_updated).await, Ok(false));
    user.execute("UPDATE users SET bio = 'x'").await.unwrap();
    assert_eq!(user.fetch_value::<bool>(select_was_updated).await, Ok(true));
}

#[tokio::test]
async fn users_see_and_change_only_their_own_tutorial() {
    let world = World::new().await;
    let (user, other_user) = (world.new_user().await, world.new_user().await);
    let insert_progress =
        |id| format!("INSERT INTO tutorial_progress (user_id, path) VALUES ('{id}', 'player') RETURNING current_step");
    assert_eq!(user.fetch_value::<String>(&insert_progress(user.user_id())).await.unwrap(), "welcome");
    let insert_for_other_user = format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", other_user.user_id());
    assert_refused!(user.execute(&insert_for_other_user).await, forbidden);
    assert_eq!(user.execute("UPDATE tutorial_progress SET current_step = 'character-basics'").await, Ok(1));
    assert_eq!(other_user.count("tutorial_progress").await, 0);
    assert_eq!(other_user.execute("UPDATE tutorial_progress SET skipped = true").await, Ok(0));
    assert_refused!(
        user.execute("UPDATE tutorial_progress SET current_step = 'nowhere'").await,
        CHECK_VIOLATION,
        "valid_step"
    );
    assert_refused!(
        user.execute("UPDATE tutorial_progress SET completed_steps = '{nowhere}'").await,
        CHECK_VIOLATION,
        "valid_step"
    );
    assert_refused!(user.execute("UPDATE tutorial_progress SET started_at = now()").await, forbidden);
    assert_refused!(world.visitor().execute("SELECT FROM tutorial_progress").await, forbidden);
}

#[tokio::test]
async fn policies_protect_every_row_even_if_a_privilege_is_granted_by_mistake() {
    let world = World::new().await;
    let game = world.new_session(1).await;
    let owner = world.owner();
    let (ada, seer, other_player) = (&game.players[0].caller, &game.seer, world.new_player().await);
    let insert_creature =
        format!("INSERT INTO creatures (adventure_id, name) VALUES ('{}', 'Wolf')", game.adventure_id);
    owner.execute(&insert_creature).await.unwrap();
    owner.execute(&format!("INSERT INTO tutorial_progress (user_id) VALUES ('{}')", ada.user_id())).await.unwrap();
    let (seers_draft_id, other_players_adventure_id) =
        (world.new_draft_adventure(seer.user_id()).await, world.new_adventure(other_player.user_id).await);
    // Users normally may not update these columns (except `user_id` of `tutorial_progress`). With these privileges,
    // only the policies protect the rows.
    owner
        .execute(
            "GRANT UPDATE (creator_id) ON adventures TO authenticated;
             GRANT UPDATE (user_id) ON characters TO authenticated;
             GRANT UPDATE (adventure_id) ON creatures TO authenticated;
             GRANT UPDATE (seer_id) ON sessions TO authenticated;
             GRANT UPDATE (user_id, session_id) ON session_players TO authenticated;
             GRANT UPDATE (user_id) ON tutorial_progress TO authenticated;
             GRANT UPDATE (id) ON users TO authenticated",
        )
        .await
        .unwrap();
    let other_session_id = world.new_session(0).await.session_id;
    let unseated_character_id = world.new_character(ada.user_id()).await;
    for (caller, sql) in [
        (seer, format!("UPDATE adventures SET creator_id = '{}' WHERE id = '{seers_draft_id}'", other_player.user_id)),
        (
            ada,
            format!("UPDATE characters SET user_id = '{}' WHERE id = '{unseated_character_id}'", other_player.user_id),
        ),
        // PostgreSQL applies SELECT policies to an UPDATE only if the UPDATE reads a column. Most of the following
        // statements read none, so the UPDATE policies alone must refuse them.
        (&other_player.caller, format!("UPDATE adventures SET creator_id = '{}'", ada.user_id())),
        (&other_player.caller, format!("UPDATE characters SET user_id = '{}'", ada.user_id())),
        (ada, format!("UPDATE session_players SET user_id = '{}'", other_player.user_id)),
        (seer, format!("UPDATE creatures SET adventure_id = '{other_players_adventure_id}'")),
        (seer, format!("UPDATE sessions SET seer_id = '{}' WHERE id = '{}'", other_player.user_id, game.session_id)),
        (
            seer,
            format!(
                "UPDATE session_players SET session_id = '{other_session_id}' WHERE session_id = '{}'",
                game.session_id
            ),
        ),
        (ada, format!("UPDATE tutorial_progress SET user_id = '{}'", other_player.user_id)),
        (ada, format!("UPDATE users SET id = '{}' WHERE id = '{}'", uuid::Uuid::new_v4(), ada.user_id())),
    ] {
        let error = caller.execute(&sql).await.expect_err(&sql);
        assert!(error.is_insufficient_privilege() && error.message.contains("row-level security"), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn closing_an_account_removes_its_personal_data_and_only_its_user_or_the_service_may_close_it() {
    let world = World::new().await;
    let service = world.sparc.as_service();
    let new_account =
        NewAccount { email: Some("ada@x.org".into()), display_name: Some("Ada Lovelace".into()), ..Default::default() };
    let user_id = service.users().sign_up(new_account).await.unwrap().id;
    let ada = world.sparc.as_user(user_id);
    let changes = ProfileChanges {
        avatar_url: Some(Some("https://x.org/ada.png".into())),
        bio: Some(Some("Counts".into())),
        ..Default::default()
    };
    ada.users().edit(changes).await.unwrap();
    assert!(service.users().set_badge(user_id, Badge::Verified).await.unwrap().is_verified);
    assert_eq!(service.users().by_email("ada@x.org").await.unwrap().id, user_id);
    assert_eq!(world.sparc.as_anon().users().by_display_name("Ada Lovelace").await.unwrap().len(), 1);
    ada.users().close_account(user_id).await.unwrap();
    assert_error!(ada.users().close_account(user_id).await, Error::AccountClosed);
    // The service may close the account again, which changes nothing.
    service.users().close_account(user_id).await.unwrap();
    let profile = service.users().profile(user_id).await.unwrap();
    assert_eq!((profile.display_name.as_str(), profile.avatar_url, profile.bio), ("Former player", None, None));
    let select_email = format!("SELECT email FROM users WHERE id = '{user_id}'");
    assert_eq!(world.owner().fetch_value::<String>(&select_email).await, Ok(format!("{user_id}@deleted.invalid")));
    let accounts_with_personal_data = "auth.users WHERE raw_user_meta_data::text LIKE '%Ada%' OR email IS NOT NULL";
    assert_eq!(world.owner().count(accounts_with_personal_data).await, 0);
    assert_error!(ada.characters().create(NewCharacter::default()).await, Error::AccountClosed);
    let other_account_id = world.new_account().await;
    let close_other_account = format!("SELECT private.close_account('{other_account_id}')");
    assert_refused!(world.new_user().await.execute(&close_other_account).await, forbidden);
    assert_refused!(world.visitor().execute(&close_other_account).await, forbidden);
}

/// The request has more ids than the 65,535 parameters that PostgreSQL allows per statement.
#[tokio::test]
async fn a_request_for_70_000_profiles_returns_those_that_exist() {
    let world = World::new().await;
    let (first_id, last_id) = (world.new_account().await, world.new_account().await);
    let mut ids = vec![first_id];
    ids.extend((0..70_000).map(|_| Uuid::new_v4()));
    ids.push(last_id);
    let profiles = world.sparc.as_anon().users().profiles(&ids).await.unwrap();
    let mut found_ids: Vec<Uuid> = profiles.into_iter().map(|profile| profile.id).collect();
    found_ids.sort_unstable();
    let mut expected_ids = [first_id, last_id];
    expected_ids.sort_unstable();
    assert_eq!(found_ids, expected_ids);
}
