//! A model of the game in plain Rust, which is compared with the database: random users make random calls to both.
//! After each call, both must give the same answer, and a random reader must see the same rows in both.
//!
//! For a longer run: `SPARC_STEPS=1000000 SPARC_SEED=7 cargo test --release --test integration model`.

use std::{collections::BTreeMap, sync::Mutex};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner},
};
use sparc::service::Sparc;
use uuid::Uuid;

use crate::{
    random_operations::broken_invariants,
    world::{World, server},
};

mod adventures;
mod game;
mod picks;
mod seats;
mod sessions;
mod steps;
mod visible;

use game::{Adventure, Game, User};
use steps::{Step, Target, step_strategy};
use visible::{ModelIdentity, read_visible_lines};

const USER_COUNT: usize = 5;

/// The number of steps of one proptest case. Each case has its own database.
const STEPS_PER_CASE: usize = 1000;

/// Creates five users, a published adventure and a valid draft, in the database and in the model.
async fn create_game(world: &World) -> Game {
    let mut game = Game::default();
    for _ in 0..USER_COUNT {
        let id = world.new_account().await;
        game.users.push(User { id, games_played: 0, games_run: 0, has_closed_account: false });
    }
    for (creator, status) in [(0, "published"), (1, "draft")] {
        let (id, creature) = (game.next_id(), game.next_id());
        let creator_id = game.users[creator].id;
        let sql = format!(
            "INSERT INTO adventures (id, creator_id, name, status, is_valid)
             VALUES ('{id}', '{creator_id}', 'The Drowned Ford', '{status}', true);
             INSERT INTO creatures (id, adventure_id, name) VALUES ('{creature}', '{id}', 'Wolf')"
        );
        world.owner().execute(&sql).await.unwrap();
        let creature = Some(creature);
        game.adventures.push(Adventure {
            id,
            creator,
            status,
            is_valid: true,
            times_played: 0,
            creature,
            is_deleted: false,
        });
    }
    let select_default =
        "SELECT pg_get_expr(adbin, adrelid)::integer FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid
                   AND attnum = adnum WHERE adrelid = 'characters'::regclass AND attname = 'max_hit_points'";
    game.default_hit_points = world.owner().fetch_value(select_default).await.unwrap();
    game
}

/// The number of times that each answer occurred.
type Tally = Mutex<BTreeMap<&'static str, u64>>;

/// Makes the calls of one proptest case, in a new database and in the model. Compares answers and rows after each call.
async fn run_case(steps: &[Step], tally: &Tally) -> Result<(), TestCaseError> {
    let world = World::new_with_connections(server().await, 2).await;
    let mut game = create_game(&world).await;
    let sparc = Sparc::from_connection(world.pool.clone());
    let target = Target { pool: world.pool.get_postgres_connection_pool(), sparc: &sparc };
    for (number, step) in steps.iter().enumerate() {
        if let Some((actual, expected)) = step.call(&mut game, &target).await {
            // A statement of a closed account is refused or finds no row, depending on its plan. Neither changes
            // anything, so both count as the refusal.
            let actual = if actual == Ok(false) && expected == Err("account_closed") { expected } else { actual };
            prop_assert_eq!(actual, expected, "step {}: {:?}", number, step);
            let answer = actual.map_or_else(|code| code, |affected_row| if affected_row { "done" } else { "no row" });
            *tally.lock().unwrap().entry(answer).or_default() += 1;
        }
        let reader = match usize::from(step.reader) % (USER_COUNT + 2) {
            0 => ModelIdentity::Visitor,
            1 => ModelIdentity::Service,
            user => ModelIdentity::User(user - 2),
        };
        let (visible_lines, expected_lines) =
            (read_visible_lines(target.pool, &game, reader).await, game.lines_visible_to(reader));
        let missing_lines: Vec<&String> = expected_lines.iter().filter(|line| !visible_lines.contains(line)).collect();
        let unexpected_lines: Vec<&String> =
            visible_lines.iter().filter(|line| !expected_lines.contains(line)).collect();
        prop_assert!(
            visible_lines == expected_lines,
            "step {}: {:?}: the reader {:?} must also see {:#?}, and must not see {:#?}",
            number,
            step,
            reader,
            missing_lines,
            unexpected_lines
        );
    }
    let violations = broken_invariants(&world).await;
    prop_assert!(violations.is_empty(), "{:?}", violations);
    Ok(())
}

#[test]
fn the_database_returns_the_same_answers_and_rows_as_the_model() {
    let env_u64 = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let step_count = env_u64("SPARC_STEPS").unwrap_or(2000);
    let seed = env_u64("SPARC_SEED").unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
    println!("{step_count} steps, SPARC_SEED={seed}");
    let config = Config {
        cases: u32::try_from(step_count.div_ceil(STEPS_PER_CASE as u64)).unwrap(),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_time: 60_000, // milliseconds
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let strategy = proptest::collection::vec(step_strategy(), STEPS_PER_CASE);
    let tally = Tally::default();
    let outcome = TestRunner::new(config).run(&strategy, |steps| runtime.block_on(run_case(&steps, &tally)));
    println!("{:?}", tally.lock().unwrap());
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => {
            let steps: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
            panic!("SPARC_SEED={seed}: {reason}\nafter {} steps:\n{}", steps.len(), steps.join("\n"));
        }
        Err(error) => panic!("SPARC_SEED={seed}: {error}"),
    }
}
