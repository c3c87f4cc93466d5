//! Scripts for pgbench that run the same statements as an operation of the service, with the same values.

use std::fmt::Write;

/// A statement of a script, and the values of its parameters.
#[derive(Clone, Debug)]
pub struct ScriptStatement {
    /// The statement, with `$1`, `$2` and so on.
    pub sql: String,
    /// The values as SQL expressions, in the order of the parameters: one list per argument set (the values for one
    /// execution). A client uses the list whose index is the client's number, modulo the number of lists. Only quoted
    /// strings and numbers may differ between the lists. Any other expression must be the same in all lists, because
    /// the script contains only the expression of the first list.
    pub values: Vec<Vec<String>>,
}

/// Returns the script. Each client loads its values into variables once, and then repeats the transaction. The first of
/// `statements` must set the role and the claims of the user; if `is_pipelined`, BEGIN and this statement take one
/// round trip together.
#[must_use]
pub fn build_script(statements: &[ScriptStatement], is_pipelined: bool) -> String {
    let argument_set_count = statements.first().map_or(0, |statement| statement.values.len());
    let mut variables = Vec::new();
    // The values of all variables, one row per argument set.
    let mut rows: Vec<Vec<String>> = vec![Vec::new(); argument_set_count];
    let mut transaction = String::from(if is_pipelined { "\\startpipeline\nBEGIN;\n" } else { "BEGIN;\n" });
    for (index, statement) in statements.iter().enumerate() {
        let mut sql = statement.sql.clone();
        // The parameters are replaced from the last to the first, because `$1` is also the beginning of `$10`.
        for number in (1..=statement.values[0].len()).rev() {
            let value = &statement.values[0][number - 1];
            // Only literals become variables. Other expressions stay: a random value must be new in each transaction,
            // and a variable cannot hold NULL.
            let replacement = if value.starts_with('\'') || value.parse::<f64>().is_ok() {
                let variable = format!("v{index}_{number}");
                for (row, values) in rows.iter_mut().zip(&statement.values) {
                    row.push(values[number - 1].clone());
                }
                variables.push(variable.clone());
                format!(":{variable}")
            } else {
                value.clone()
            };
            sql = sql.replace(&format!("${number}"), &replacement);
        }
        let pipeline_end = if is_pipelined && index == 0 { "\n\\endpipeline" } else { "" };
        let _ = writeln!(transaction, "{sql};{pipeline_end}");
    }
    transaction.push_str("COMMIT;\n");

    // Each client begins with `has_values` = 0 (`--define`), and sets this variable to 1 once it has loaded its values.
    let mut script = String::from("\\if :has_values\n\\else\n");
    let rows: Vec<String> =
        rows.iter().enumerate().map(|(number, row)| format!("({number}, {})", row.join(", "))).collect();
    let _ = writeln!(
        script,
        "SELECT {0} FROM (VALUES {1}) AS argument_set (number, {0}) WHERE number = :client_id::integer % {2} \\gset",
        variables.join(", "),
        rows.join(", "),
        rows.len()
    );
    script.push_str("\\set has_values 1\n\\endif\n");
    script + &transaction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement with the values of one argument set. It has ten parameters, so that the tests cover `$10`, in which
    /// `$1` must not be replaced.
    fn statement_with_ten_parameters() -> ScriptStatement {
        ScriptStatement {
            sql: "INSERT INTO t VALUES ($1, $2, $10)".to_owned(),
            values: vec![
                ["gen_random_uuid()", "'a'", "3", "4", "5", "6", "7", "8", "9", "NULL"].map(str::to_owned).to_vec(),
            ],
        }
    }

    #[test]
    fn literals_become_variables_and_other_expressions_stay_in_the_statement() {
        let script = build_script(&[statement_with_ten_parameters()], false);
        assert!(script.contains("INSERT INTO t VALUES (gen_random_uuid(), :v0_2, NULL);"), "{script}");
        assert!(script.contains("\\gset") && script.ends_with("COMMIT;\n"));
    }

    #[test]
    fn only_a_pipelined_script_has_a_pipeline_which_ends_after_the_first_statement() {
        let statements = [statement_with_ten_parameters(), statement_with_ten_parameters()];
        let [unpipelined, pipelined] = [false, true].map(|is_pipelined| build_script(&statements, is_pipelined));
        assert!(!unpipelined.contains("pipeline"), "{unpipelined}");
        let transaction = "\\startpipeline\nBEGIN;\nINSERT INTO t VALUES (gen_random_uuid(), :v0_2, NULL);\n\
                           \\endpipeline\nINSERT INTO t VALUES (gen_random_uuid(), :v1_2, NULL);\nCOMMIT;\n";
        assert!(pipelined.ends_with(transaction), "{pipelined}");
    }
}
