//! pgbench scripts that run the same statements as an operation of the service, prepared once, with the same values.

use std::fmt::Write;

/// A prepared statement and its values.
#[derive(Clone, Debug)]
pub struct Step {
    /// The statement, with `$1`, `$2` and so on.
    pub sql: String,
    /// The values as SQL expressions: one list per sample, in the order of the parameters. Client n uses the list n,
    /// modulo their number.
    pub values: Vec<Vec<String>>,
}

/// Returns the script. Each client loads its values once and then repeats the transaction. The first step sets the
/// identity; if `is_pipelined`, BEGIN and this step take one round trip together.
#[must_use]
pub fn build_script(steps: &[Step], is_pipelined: bool) -> String {
    let mut variables = Vec::new();
    let mut rows: Vec<Vec<String>> = vec![Vec::new(); steps.first().map_or(0, |step| step.values.len())];
    let mut transaction = String::from(if is_pipelined { "\\startpipeline\nBEGIN;\n" } else { "BEGIN;\n" });
    for (index, step) in steps.iter().enumerate() {
        let mut sql = step.sql.clone();
        // From the last parameter to the first, so that `$1` does not replace the beginning of `$10`.
        for number in (1..=step.values[0].len()).rev() {
            let value = &step.values[0][number - 1];
            // Only literals become variables: a random value must be new in each transaction, and a variable cannot
            // hold NULL.
            let replacement = if value.starts_with('\'') || value.parse::<f64>().is_ok() {
                let variable = format!("v{index}_{number}");
                for (row, values) in rows.iter_mut().zip(&step.values) {
                    row.push(values[number - 1].clone());
                }
                variables.push(variable.clone());
                format!(":{variable}")
            } else {
                value.clone()
            };
            sql = sql.replace(&format!("${number}"), &replacement);
        }
        let end = if is_pipelined && index == 0 { "\n\\endpipeline" } else { "" };
        let _ = writeln!(transaction, "{sql};{end}");
    }
    transaction.push_str("COMMIT;\n");

    let mut script = String::from("\\if :loaded\n\\else\n");
    let rows: Vec<String> =
        rows.iter().enumerate().map(|(number, row)| format!("({number}, {})", row.join(", "))).collect();
    let _ = writeln!(
        script,
        "SELECT {0} FROM (VALUES {1}) AS sample (number, {0}) WHERE number = :client_id::integer % {2} \\gset",
        variables.join(", "),
        rows.join(", "),
        rows.len()
    );
    script.push_str("\\set loaded 1\n\\endif\n");
    script + &transaction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_loaded_once_and_random_ones_are_generated_each_time() {
        let step = Step {
            sql: "INSERT INTO t VALUES ($1, $2, $10)".to_owned(),
            values: vec![
                ["gen_random_uuid()", "'a'", "3", "4", "5", "6", "7", "8", "9", "NULL"].map(str::to_owned).to_vec(),
            ],
        };
        let script = build_script(std::slice::from_ref(&step), false);
        assert!(!script.contains("pipeline"), "{script}");
        assert!(build_script(&[step], true).contains("\\endpipeline\nCOMMIT"));
        assert!(script.contains("INSERT INTO t VALUES (gen_random_uuid(), :v0_2, NULL);"), "{script}");
        assert!(script.contains("\\gset") && script.ends_with("COMMIT;\n"));
    }
}
