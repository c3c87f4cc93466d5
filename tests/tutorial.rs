//! The tutorial, in plain SQL and through the crate `service`: users must complete its steps in order.

use sparc::{
    entity::sea_orm_active_enums::TutorialPath,
    service::{Error, Operations, tutorial::Step},
};

use crate::{
    sqlstates::TUTORIAL_OUT_OF_ORDER,
    world::{SqlCaller, World},
};

/// Runs a statement that must fail, and returns whether the database refuses it because the statement does not
/// follow the order of the steps.
async fn is_refused_as_out_of_order(caller: &SqlCaller, sql: &str) -> bool {
    caller.execute(sql).await.unwrap_err().has(TUTORIAL_OUT_OF_ORDER, "tutorial_in_order")
}

#[tokio::test]
async fn the_steps_of_each_path_must_be_completed_in_order() {
    let world = World::new().await;
    for path in [TutorialPath::Player, TutorialPath::Seer] {
        let me = world.sparc.as_user(world.new_account().await);
        assert!(me.tutorial().progress().await.unwrap().is_none());
        assert_eq!(me.tutorial().begin(path).await.unwrap().current_step, "welcome");
        assert_eq!(me.tutorial().begin(path).await.unwrap().completed_steps, Vec::<String>::new());
        let steps = Step::of_path(path);
        for (index, step) in steps[..steps.len() - 1].iter().enumerate() {
            assert_error!(
                me.tutorial().complete().await,
                Error::TutorialOutOfOrder,
                "the tutorial must not be completed at {step}"
            );
            let progress = me.tutorial().complete_step(*step).await.unwrap();
            assert_eq!(progress.current_step, steps[index + 1].to_string());
            assert_eq!(progress.completed_steps.len(), index + 1);
            assert_error!(
                me.tutorial().complete_step(*step).await,
                Error::TutorialOutOfOrder,
                "{step} must not be completed twice"
            );
        }
        let completed_progress = me.tutorial().complete().await.unwrap();
        assert_eq!(completed_progress.completed_steps.len(), steps.len());
        let repeated_progress = me.tutorial().complete().await.unwrap();
        assert_eq!(
            repeated_progress.completed_at, completed_progress.completed_at,
            "completing again must keep completed_at"
        );
        assert_error!(me.tutorial().complete_step(*steps.last().unwrap()).await, Error::TutorialOutOfOrder);
        let restarted_progress = me.tutorial().restart(TutorialPath::Seer).await.unwrap();
        assert_eq!(
            (
                restarted_progress.current_step.as_str(),
                restarted_progress.completed_at,
                restarted_progress.completed_steps.len()
            ),
            ("welcome", None, 0)
        );
    }
}

#[tokio::test]
async fn a_skipped_tutorial_may_still_be_begun() {
    let world = World::new().await;
    let me = world.sparc.as_user(world.new_account().await);
    assert!(me.tutorial().skip().await.unwrap().skipped);
    assert!(me.tutorial().skip().await.unwrap().skipped, "skipping again must succeed");
    // This tutorial was skipped before it began. So it has no path yet, and without a path no next or last step.
    assert_error!(me.tutorial().complete_step(Step::Welcome).await, Error::TutorialOutOfOrder);
    assert_error!(me.tutorial().complete().await, Error::TutorialOutOfOrder);
    let progress = me.tutorial().begin(TutorialPath::Player).await.unwrap();
    assert_eq!(progress.path, Some(TutorialPath::Player), "a user who skipped the tutorial may still begin it");
    assert_eq!(me.tutorial().complete_step(Step::Welcome).await.unwrap().current_step, "character-basics");
    let restarted_progress = me.tutorial().restart(TutorialPath::Player).await.unwrap();
    assert!(!restarted_progress.skipped, "a restart must set `skipped` to false");
}

#[tokio::test]
async fn a_skipped_tutorial_may_be_restarted_on_either_path() {
    let world = World::new().await;
    for path in [TutorialPath::Player, TutorialPath::Seer] {
        let me = world.sparc.as_user(world.new_account().await);
        assert_error!(me.tutorial().restart(path).await, Error::NotFound { what: "tutorial" });
        me.tutorial().skip().await.unwrap();
        let restarted_progress = me.tutorial().restart(path).await.unwrap();
        assert_eq!((restarted_progress.path, restarted_progress.skipped), (Some(path), false));
    }
}

#[tokio::test]
async fn a_user_cannot_skip_steps_with_plain_sql() {
    let world = World::new().await;
    let user = world.new_user().await;
    let id = user.user_id();
    for insert in [
        format!(
            "INSERT INTO tutorial_progress (user_id, path, current_step) VALUES ('{id}', 'player', 'dice-rolling')"
        ),
        format!("INSERT INTO tutorial_progress (user_id, path, completed_at) VALUES ('{id}', 'seer', now())"),
        format!(
            "INSERT INTO tutorial_progress (user_id, path, completed_steps)
                 VALUES ('{id}', 'player', '{{welcome,character-basics}}')"
        ),
    ] {
        assert!(is_refused_as_out_of_order(&user, &insert).await, "{insert}");
    }
    user.execute(&format!("INSERT INTO tutorial_progress (user_id, path) VALUES ('{id}', 'player')")).await.unwrap();
    for assignments in [
        // The fourth step of the player's path.
        "current_step = 'combat-practice'",
        // A step of the other path.
        "current_step = 'running-sessions'",
        "completed_at = now()",
        "completed_steps = '{welcome,character-basics,dice-rolling}'",
        "path = 'seer', current_step = 'seer-complete'",
    ] {
        assert!(
            is_refused_as_out_of_order(&user, &format!("UPDATE tutorial_progress SET {assignments}")).await,
            "{assignments}"
        );
    }
    // A user may mark the current step as completed and then go to the next step, or do both in one statement.
    user.execute("UPDATE tutorial_progress SET completed_steps = '{welcome}'").await.unwrap();
    user.execute("UPDATE tutorial_progress SET current_step = 'character-basics'").await.unwrap();
    user.execute(
        "UPDATE tutorial_progress SET current_step = 'dice-rolling', completed_steps = '{welcome,character-basics}'",
    )
    .await
    .unwrap();
    let select_completed_steps = "SELECT array_to_string(completed_steps, ' ') FROM tutorial_progress";
    assert_eq!(user.fetch_value::<String>(select_completed_steps).await.unwrap(), "welcome character-basics");
    assert!(
        is_refused_as_out_of_order(&user, "UPDATE tutorial_progress SET current_step = 'character-basics'").await,
        "a step back must be refused"
    );
    assert!(
        is_refused_as_out_of_order(&user, "UPDATE tutorial_progress SET path = 'seer'").await,
        "after the first step, a change of the path alone must be refused"
    );
    // A user may change the path if the statement also returns to the first step.
    user.execute("UPDATE tutorial_progress SET path = 'seer', current_step = 'welcome'").await.unwrap();
    user.execute("UPDATE tutorial_progress SET current_step = 'running-sessions'").await.unwrap();
    user.execute("UPDATE tutorial_progress SET current_step = 'seer-complete'").await.unwrap();
    user.execute("UPDATE tutorial_progress SET completed_at = '2000-01-01'").await.unwrap();
    assert_eq!(
        user.count("tutorial_progress WHERE completed_at > '2020-01-01'").await,
        1,
        "the database must set completed_at itself"
    );
    let set_fourth_step =
        "UPDATE tutorial_progress SET path = 'player', current_step = 'combat-practice', completed_at = NULL";
    assert_eq!(world.service().execute(set_fourth_step).await, Ok(1), "the service may set any step");
}
