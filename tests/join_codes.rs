//! Join codes: their form, their uniqueness, and whether the random numbers from which they are made are equally
//! frequent.

use std::collections::HashSet;

use crate::world::{World, run_together};

#[tokio::test]
async fn join_codes_are_unique_and_have_six_unambiguous_characters() {
    let world = World::new().await;
    let adventure_id = world.new_adventure(world.new_account().await).await;
    let mut seers = Vec::new();
    for _ in 0..24 {
        seers.push(world.new_user().await);
    }
    let mut codes = HashSet::new();
    for round in 1..=100 {
        let tasks = seers
            .iter()
            .cloned()
            .map(|seer| async move {
                let sql = format!("INSERT INTO sessions (adventure_id) VALUES ('{adventure_id}') RETURNING code::text");
                seer.fetch_value::<String>(&sql).await
            })
            .collect();
        codes.extend(run_together(tasks).await.into_iter().map(Result::unwrap));
        assert_eq!(codes.len(), 24 * round, "every session must have its own code");
        // An account may be the Seer of at most twenty live sessions (neither completed nor cancelled), so those of
        // this round are cancelled.
        world.owner().execute("UPDATE sessions SET status = 'cancelled' WHERE status = 'waiting'").await.unwrap();
    }
    for code in &codes {
        assert_eq!(code.len(), 6);
        assert!(code.chars().all(|c| "ABCDEFGHJKMNPQRSTUVWXYZ23456789".contains(c)), "{code}");
    }
}

#[tokio::test]
async fn the_random_numbers_behind_join_codes_are_equally_frequent() {
    let world = World::new().await;
    // Codes are made of numbers below 31, the size of their alphabet. Each call draws 155 numbers; `0 * i` makes
    // PostgreSQL call the function once per row.
    let sql = "SELECT count(*)
               FROM generate_series(1, 400) AS i, unnest(private.random_numbers(31, 155 + 0 * i)) AS number
               GROUP BY number";
    let counts: Vec<i64> = world.owner().fetch_values(sql).await.unwrap();
    assert_eq!(counts.len(), 31);
    // Of 62,000 numbers, each of the 31 values is expected 2,000 times, with a standard deviation of 44. A difference
    // of more than six standard deviations does not happen by chance.
    assert!(counts.iter().all(|count| (1736..=2264).contains(count)), "{counts:?}");
}
