//! Scripts for pgbench that run the same statements as an operation of the service, with the same values.

use std::fmt::Write;

use crate::sql_values::NEW_UUID;

/// A statement of a script, and the values of its parameters.
#[derive(Clone, Debug)]
pub struct ScriptStatement {
    /// The statement, with `$1`, `$2` and so on.
    pub sql: String,
    /// The values as SQL expressions, in the order of the parameters: one list per argument set (the values for one
    /// execution). A client uses the list whose index is the client's number, modulo the number of lists. Only quoted
    /// strings and numbers may differ between the lists. Any other expression ([`NEW_UUID`] or NULL) must be the same
    /// in all lists, because the script contains only the expression of the first list.
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
    let mut random_numbers = String::new();
    let mut transaction = String::from(if is_pipelined { "\\startpipeline\nBEGIN;\n" } else { "BEGIN;\n" });
    for (index, statement) in statements.iter().enumerate() {
        let mut sql = statement.sql.clone();
        // The parameters are replaced from the last to the first, because `$1` is also the beginning of `$10`.
        for number in (1..=statement.values[0].len()).rev() {
            let value = &statement.values[0][number - 1];
            // Literals become variables. NULL stays, because a variable cannot hold it. A new UUID is computed from a
            // random number. If `gen_random_uuid()` stayed, a statement that uses the parameter twice would have two
            // different ids, and a condition with it could not use an index, because the function is volatile.
            let replacement = if value.starts_with('\'') || value.parse::<f64>().is_ok() {
                let variable = format!("v{index}_{number}");
                for (row, values) in rows.iter_mut().zip(&statement.values) {
                    row.push(values[number - 1].clone());
                }
                variables.push(variable.clone());
                format!(":{variable}")
            } else if value == NEW_UUID {
                let variable = format!("random{index}_{number}");
                let _ = writeln!(random_numbers, "\\set {variable} random(1, {})", i64::MAX);
                format!("md5(:{variable}::text)::uuid")
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
    script + &random_numbers + &transaction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement with the values of one argument set. It has ten parameters, so that the tests cover `$10`, in which
    /// `$1` must not be replaced.
    fn statement_with_ten_parameters() -> ScriptStatement {
        ScriptStatement {
            sql: "INSERT INTO t VALUES ($1, $2, $10)".to_owned(),
            values: vec![[NEW_UUID, "'a'", "3", "4", "5", "6", "7", "8", "9", "NULL"].map(str::to_owned).to_vec()],
        }
    }

    #[test]
    fn literals_become_variables_and_null_stays_in_the_statement() {
        let script = build_script(&[statement_with_ten_parameters()], false);
        assert!(script.contains(", :v0_2, NULL);"), "{script}");
    }

    #[test]
    fn a_new_uuid_is_the_same_wherever_the_statement_uses_its_parameter() {
        let sql = "INSERT INTO t SELECT $1 WHERE NOT EXISTS (SELECT FROM t WHERE id = $1)".to_owned();
        let script = build_script(&[ScriptStatement { sql, values: vec![vec![NEW_UUID.to_owned()]] }], false);
        let transaction = "\\set random0_1 random(1, 9223372036854775807)\nBEGIN;\n\
                           INSERT INTO t SELECT md5(:random0_1::text)::uuid WHERE NOT EXISTS \
                           (SELECT FROM t WHERE id = md5(:random0_1::text)::uuid);\nCOMMIT;\n";
        assert!(script.ends_with(transaction), "{script}");
    }

    #[test]
    fn each_client_loads_the_values_of_one_argument_set() {
        let statement = |sql: &str, values: [[&str; 2]; 3]| ScriptStatement {
            sql: sql.to_owned(),
            values: values.map(|values| values.map(str::to_owned).to_vec()).to_vec(),
        };
        let script = build_script(
            &[
                statement("SELECT $1, $2", [["'a'", "1"], ["'b'", "2"], ["'c'", "3"]]),
                statement("SELECT $2, $1", [["NULL", "'x'"], ["NULL", "'y'"], ["NULL", "'z'"]]),
            ],
            false,
        );
        // The parameters of a statement become variables from the last to the first.
        let expected = "\\if :has_values\n\\else\n\
                        SELECT v0_2, v0_1, v1_2 FROM (VALUES (0, 1, 'a', 'x'), (1, 2, 'b', 'y'), (2, 3, 'c', 'z')) \
                        AS argument_set (number, v0_2, v0_1, v1_2) WHERE number = :client_id::integer % 3 \\gset\n\
                        \\set has_values 1\n\\endif\n\
                        BEGIN;\nSELECT :v0_1, :v0_2;\nSELECT :v1_2, NULL;\nCOMMIT;\n";
        assert_eq!(script, expected);
    }

    #[test]
    fn only_pipelined_scripts_have_a_pipeline_with_begin_and_the_first_statement() {
        let statements = [statement_with_ten_parameters(), statement_with_ten_parameters()];
        let [unpipelined, pipelined] = [false, true].map(|is_pipelined| build_script(&statements, is_pipelined));
        assert!(!unpipelined.contains("pipeline"), "{unpipelined}");
        let transaction = "\\startpipeline\nBEGIN;\n\
                           INSERT INTO t VALUES (md5(:random0_1::text)::uuid, :v0_2, NULL);\n\\endpipeline\n\
                           INSERT INTO t VALUES (md5(:random1_1::text)::uuid, :v1_2, NULL);\nCOMMIT;\n";
        assert!(pipelined.ends_with(transaction), "{pipelined}");
    }
}
