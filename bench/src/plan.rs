//! The plan of what a measure asks, as the role that asks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Failure,
    client::Client,
    side::{Asking, Role, begin},
};

/// A plan that was run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Its lines, as EXPLAIN says them.
    pub text: String,
    /// Its nodes with their tables and indexes, and nothing that changes from run to run.
    pub shape: String,
    /// Planning and running, milliseconds.
    pub ms: f64,
    /// Buffers that it touched, a mean over places.
    pub buffers: u64,
}

impl Plan {
    /// A short name of its shape (FNV-1a).
    #[must_use]
    pub fn hash(&self) -> String {
        let hash = self
            .shape
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("{hash:016x}")
    }
}

/// Places whose buffers are counted: one has more than another.
const PLACES: usize = 16;

/// Runs the last statement of what is asked under EXPLAIN: its plan at the first place, and what it touches at several.
pub async fn of(client: &mut Client, asking: &Asking, role: Role, mode: &str) -> Result<Plan, Failure> {
    let places = &asking.asked[..asking.asked.len().min(PLACES)];
    let mut plan = Plan::default();
    let mut buffers = 0;
    // The first one once before, so that its time is warm.
    for (turn, asked) in places.iter().take(1).chain(places).enumerate() {
        let mut parts: Vec<&str> = asked.timed.split("; ").collect();
        let last = parts.pop().unwrap_or_default();
        let before = format!("{}; SET LOCAL plan_cache_mode = {mode}; {}", begin(role, asked), parts.join("; "));
        client.run(&before).await?;
        let lines = client.rows(&format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {last}")).await;
        let text = client.rows(&format!("EXPLAIN (COSTS OFF) {last}")).await;
        client.run("ROLLBACK").await?;
        let lines: String = lines?.into_iter().map(|mut row| row.remove(0)).collect::<Vec<_>>().join("\n");
        let told: Value = serde_json::from_str(&lines)?;
        let top = &told[0];
        if turn == 1 {
            plan.text = text?.into_iter().map(|mut row| row.remove(0)).collect::<Vec<_>>().join("\n");
            walk(&top["Plan"], &mut plan.shape);
            plan.ms =
                top["Planning Time"].as_f64().unwrap_or_default() + top["Execution Time"].as_f64().unwrap_or_default();
        }
        if turn > 0 {
            buffers += ["Shared Hit Blocks", "Shared Read Blocks"]
                .iter()
                .filter_map(|kind| top["Plan"][kind].as_u64())
                .sum::<u64>();
        }
    }
    plan.buffers = buffers / places.len().max(1) as u64;
    Ok(plan)
}

fn walk(node: &Value, shape: &mut String) {
    for part in ["Node Type", "Relation Name", "Index Name", "Join Type"] {
        if let Some(text) = node[part].as_str() {
            shape.push_str(text);
            shape.push(' ');
        }
    }
    shape.push('(');
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, shape);
    }
    shape.push(')');
}
