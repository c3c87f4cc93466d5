//! The plan of a measured statement, made under the role that runs it.

use serde_json::Value;

use crate::{
    client::Client,
    failure::Failure,
    report::Plan,
    workload::{Role, Workload, begin_and_setup_sql},
};

/// The maximum number of argument sets over which the buffers are averaged.
const MAX_EXPLAINED_ARGUMENT_SETS: usize = 16;

/// For each of the first [`MAX_EXPLAINED_ARGUMENT_SETS`] argument sets, runs the timed statements of its execution with
/// the given `plan_cache_mode`, the last statement under EXPLAIN ANALYZE, and rolls them back. Returns the last
/// statement's plan for the first argument set; [`Plan::buffers`] is the mean over these argument sets.
pub async fn explain(
    client: &mut Client,
    workload: &Workload,
    role: Role,
    plan_cache_mode: &str,
) -> Result<Plan, Failure> {
    let executions = &workload.executions[..workload.executions.len().min(MAX_EXPLAINED_ARGUMENT_SETS)];
    let mut plan = Plan::default();
    let mut total_buffers = 0;
    // The first argument set runs twice, because its first run is the warm-up.
    for (run, execution) in executions.iter().take(1).chain(executions).enumerate() {
        let mut statements: Vec<&str> = execution.timed_sql.split("; ").collect();
        let last_statement = statements.pop().unwrap_or_default();
        let sql_before = format!(
            "{}; SET LOCAL plan_cache_mode = {plan_cache_mode}; {}",
            begin_and_setup_sql(role, execution),
            statements.join("; ")
        );
        client.run(&sql_before).await?;
        let json_rows = client.fetch_rows(&format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {last_statement}")).await;
        let text_rows = client.fetch_rows(&format!("EXPLAIN (COSTS OFF) {last_statement}")).await;
        client.run("ROLLBACK").await?;
        let json: String = json_rows?.into_iter().map(|mut row| row.remove(0)).collect::<Vec<_>>().join("\n");
        let explanations: Value = serde_json::from_str(&json)?;
        // One statement has one explanation.
        let explanation = &explanations[0];
        if run == 1 {
            plan.text = text_rows?.into_iter().map(|mut row| row.remove(0)).collect::<Vec<_>>().join("\n");
            append_shape(&explanation["Plan"], &mut plan.shape);
            plan.ms = explanation["Planning Time"].as_f64().unwrap_or_default()
                + explanation["Execution Time"].as_f64().unwrap_or_default();
        }
        if run > 0 {
            total_buffers += ["Shared Hit Blocks", "Shared Read Blocks"]
                .iter()
                .filter_map(|kind| explanation["Plan"][kind].as_u64())
                .sum::<u64>();
        }
    }
    plan.buffers = total_buffers / executions.len().max(1) as u64;
    Ok(plan)
}

/// Appends the shape of a node and of the nodes below it.
fn append_shape(node: &Value, shape: &mut String) {
    for key in ["Node Type", "Relation Name", "Index Name", "Join Type"] {
        if let Some(text) = node[key].as_str() {
            shape.push_str(text);
            shape.push(' ');
        }
    }
    shape.push('(');
    for child in node["Plans"].as_array().into_iter().flatten() {
        append_shape(child, shape);
    }
    shape.push(')');
}
