//! pgbench scripts that run the statements of an operation, prepared once, with the same values.

use std::fmt::Write;

/// A prepared statement and its values for each client.
#[derive(Clone, Debug)]
pub struct Step {
    /// The statement, with `$1`, `$2` and so on.
    pub sql: String,
    /// The values as SQL literals, per client, in the order of the parameters.
    pub values: Vec<Vec<String>>,
}

/// Returns the script. Each client loads its values once and then repeats the transaction. The first step is the
/// identity; if `pipelined`, it is sent in one message with BEGIN.
#[must_use]
pub fn script(steps: &[Step], pipelined: bool) -> String {
    let mut names = Vec::new();
    let mut rows: Vec<Vec<String>> = vec![Vec::new(); steps.first().map_or(0, |step| step.values.len())];
    let mut transaction = String::from(if pipelined { "\\startpipeline\nBEGIN;\n" } else { "BEGIN;\n" });
    for (index, step) in steps.iter().enumerate() {
        let mut sql = step.sql.clone();
        for number in (1..=step.values[0].len()).rev() {
            let value = &step.values[0][number - 1];
            // Only literals are variables: a random value must be new in each transaction, and NULL cannot be a
            // variable.
            let replacement = if value.starts_with('\'') || value.parse::<f64>().is_ok() {
                let name = format!("v{index}_{number}");
                for (row, values) in rows.iter_mut().zip(&step.values) {
                    row.push(values[number - 1].clone());
                }
                names.push(name.clone());
                format!(":{name}")
            } else {
                value.clone()
            };
            sql = sql.replace(&format!("${number}"), &replacement);
        }
        let end = if pipelined && index == 0 { "\n\\endpipeline" } else { "" };
        let _ = writeln!(transaction, "{sql};{end}");
    }
    transaction.push_str("COMMIT;\n");

    let mut script = String::from("\\if :loaded\n\\else\n");
    let rows: Vec<String> =
        rows.iter().enumerate().map(|(number, row)| format!("({number}, {})", row.join(", "))).collect();
    let _ = writeln!(
        script,
        "SELECT {0} FROM (VALUES {1}) AS sample (number, {0}) WHERE number = :client_id::integer % {2} \\gset",
        names.join(", "),
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
        let script = script(std::slice::from_ref(&step), false);
        assert!(!script.contains("pipeline"), "{script}");
        assert!(super::script(&[step], true).contains("\\endpipeline\nCOMMIT"));
        assert!(script.contains("INSERT INTO t VALUES (gen_random_uuid(), :v0_2, NULL);"), "{script}");
        assert!(script.contains("\\gset") && script.ends_with("COMMIT;\n"));
    }
}
