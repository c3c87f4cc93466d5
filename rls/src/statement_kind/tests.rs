use super::{WriteKind, cannot_change_session, may_commit, may_run_read_only, returns_written_rows, write_kind};

#[test]
fn a_returning_clause_in_a_string_does_not_count() {
    assert!(returns_written_rows(r#"UPDATE "a" SET "n" = $1 RETURNING "n""#));
    assert!(returns_written_rows(r#"UPDATE "a" SET "n" = 'x' RETURNING "n""#));
    assert!(!returns_written_rows(r#"UPDATE "a" SET "n" = ' RETURNING '"#));
    assert!(!returns_written_rows(r#"UPDATE "a" SET "n" = $1"#));
}

#[test]
fn a_statement_that_calls_a_function_may_write_anything() {
    assert_eq!(write_kind(r#"SELECT "n" FROM "a""#), WriteKind::None);
    assert_eq!(write_kind(r#"UPDATE "a" SET "n" = $1"#), WriteKind::Rows);
    assert_eq!(write_kind(r#"UPDATE "a" SET "n" = "f"($1)"#), WriteKind::Anything);
}

#[test]
fn a_statement_that_may_commit_is_recognized_by_its_first_word() {
    for sql in
        ["COMMIT", " commit and chain", "END;", "-- a\n/* b /* c */ d */ -- e\r;End", "/**/PREPARE TRANSACTION 'a'"]
    {
        assert!(may_commit(sql), "{sql}");
    }
    // In the last text, `/*/` only opens a comment, which ends after `COMMIT`.
    for sql in [
        "SELECT 1 -- COMMIT",
        "/* COMMIT",
        "/*",
        "/* é /",
        "ROLLBACK",
        "committed",
        "ending",
        "",
        "/*/COMMIT*/SELECT 1",
    ] {
        assert!(!may_commit(sql), "{sql}");
    }
}

#[test]
fn only_a_plain_select_may_run_read_only() {
    assert!(may_run_read_only(r#"SELECT "a"."id" FROM "a" WHERE "a"."id" IN ($1)"#));
    for sql in [
        r#"SELECT "a"."id" FROM "a" FOR UPDATE"#,
        r#"SELECT "a"."id" FROM "a" FOR NO KEY UPDATE SKIP LOCKED"#,
        r#"SELECT "a"."id" FROM "a" for update"#,
        "SELECT id FROM a\nFOR UPDATE",
        r#"SELECT "id" INTO "b" FROM "a""#,
        r#"SELECT nextval('a')"#,
        r#"SELECT "pid" FROM "pg_stat_activity""#,
        "SELECT pid FROM PG_STAT_ACTIVITY",
        r#"INSERT INTO "a" ("id") VALUES ($1)"#,
        r#"WITH "b" AS (DELETE FROM "a" RETURNING "id") SELECT "id" FROM "b""#,
    ] {
        assert!(!may_run_read_only(sql), "{sql}");
    }
}

#[test]
fn statements_built_from_entities_cannot_change_the_session() {
    for sql in [
        r#"SELECT "a"."id", CAST("a"."kind" AS text) FROM "a" WHERE "a"."id" = $1 LIMIT $2"#,
        r#"SELECT COUNT(*) AS num_items FROM (SELECT "a"."id" FROM "a") AS "sub_query""#,
        r#"INSERT INTO "public"."a" ("id", "kind") VALUES ($1, CAST($2 AS "kind")) ON CONFLICT ("id") DO NOTHING"#,
        r#"UPDATE "a" SET "n" = "n" + ($1) WHERE ("a"."id" IN ($2, $3)) AND ("b" IS NULL)"#,
        r#"DELETE FROM "a" WHERE EXISTS(SELECT 1 FROM "b")"#,
        r#"SELECT LOWER("a"."n"), MAX("a"."m") FROM "a" INNER JOIN "b" ON LOWER("a"."n") = UPPER("b"."n")"#,
        r#"SELECT "b"."n" FROM (SELECT LOWER("n") AS "n" FROM "a" GROUP BY LOWER("n")) AS "b" ORDER BY LOWER("b"."n")"#,
        r#"SELECT "a"."n" FROM "a" WHERE "a"."n" IN (SELECT "n" FROM "b") AND LOWER("a"."m") = $1"#,
        r#"SELECT "a"."n" FROM "a" WHERE ("a"."n" > 1.5) AND "a"."apg_m" = 'a.b' AND "n" <> $1 AND "n" = .5"#,
    ] {
        assert!(cannot_change_session(sql), "{sql}");
    }
}

#[test]
fn an_update_of_pg_settings_may_change_the_session() {
    for table in ["\"pg_settings\"", "PG_SETTINGS", "\"pg_catalog\".\"pg_settings\"", "U&\"\\0070g_settings\""] {
        let sql = format!("UPDATE {table} SET \"setting\" = $1 WHERE \"name\" = $2");
        assert!(!cannot_change_session(&sql), "{sql}");
    }
}

#[test]
fn a_function_that_is_written_like_a_field_may_change_the_session() {
    for sql in [
        r#"SELECT ("a"."n").f FROM "a""#,
        r#"SELECT ("a"."n") . "f" FROM "a""#,
        r#"SELECT (SELECT "n" FROM "a").f"#,
        r#"SELECT "a"."n"[1].f FROM "a""#,
        "SELECT $1.f",
        "SELECT $12\n.f",
        r#"SELECT "x"."pg_advisory_lock" FROM CAST(7 AS bigint) AS "x""#,
        // `ts_stat` runs its argument as SQL. In the statements below, `f` stands for any function.
        r#"SELECT "x"."ts_stat" FROM LOWER($1) AS "x""#,
        r#"SELECT "x"."f" FROM UPPER ($1) AS "x""#,
        r#"SELECT "x"."f" from LOWER($1) AS "x""#,
        r#"SELECT "x"."f" FROM CURRENT_USER AS "x""#,
        r#"SELECT "x"."f" FROM "a", current_date AS "x""#,
        r#"SELECT "x"."f" FROM "a" cross join LATERAL LOWER("a"."n") AS "x""#,
        r#"SELECT E'\'', "x"."f" FROM LOWER($1) AS "x" -- '"#,
        r#"SELECT E'\'', "x"."f" FROM LOWER($1) AS "x" WHERE 'a' = 'a"#,
        r#"SELECT $$'$$, "x"."f" FROM LOWER($1) AS "x""#,
        r#"SELECT $a$'$a$, "x"."f" FROM LOWER($1) AS "x""#,
        r#"SELECT "x"."f" FROM "a", LOWER($1) AS "x""#,
        r#"SELECT "x"."f" FROM (SELECT 1 WHERE LOWER($1) = '(') AS "b", CAST($2 AS bigint) AS "x""#,
        r#"SELECT "x"."f" FROM "a" JOIN "b" ON ("a"."n" = "b"."n"), LOWER($1) AS "x""#,
        r#"SELECT "x"."f" FROM "a" CROSS JOIN LATERAL LOWER("a"."n") AS "x""#,
        r#"SELECT (SELECT "x"."f" FROM COALESCE($1) AS "x")"#,
        r#"UPDATE "a" SET "n" = "x"."f" FROM LOWER($1) AS "x""#,
        r#"DELETE FROM "a" USING LOWER($1) AS "x" WHERE "x"."f" IS NULL"#,
    ] {
        assert!(!cannot_change_session(sql), "{sql}");
    }
}

#[test]
fn function_calls_select_into_and_other_commands_may_change_the_session() {
    for sql in [
        "SELECT set_config('role', 'postgres', true)",
        r#"SELECT "set_config"('role', 'postgres', true)"#,
        // \005f is an underscore.
        r#"SELECT U&"set\005fconfig"('role', 'postgres', true)"#,
        "SELECT set_config /* = */ ('role', 'postgres', true)",
        "SELECT set_config --=\n('role', 'postgres', true)",
        "SELECT x.COUNT('role')",
        "SELECT x . COUNT('role')",
        r#"INSERT INTO "a" ("n") VALUES (pg_advisory_lock(1))"#,
        r#"INSERT INTO "a" SELECT "f"(1)"#,
        r#"SELECT "id" INTO TEMP "b" FROM "a""#,
        "SELECT id\ninto\tb FROM a",
        "DO $$ BEGIN END $$",
        "RESET ROLE",
        // The names of these functions are éCOUNT, and COUNT with a no-break space.
        "SELECT éCOUNT(1)",
        "SELECT COUNT\u{a0}(1)",
    ] {
        assert!(!cannot_change_session(sql), "{sql}");
    }
}
