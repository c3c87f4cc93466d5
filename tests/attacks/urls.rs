//! The URL of a picture must be http, https or relative, so that it cannot run a script.

use super::{names::sql_literal, sqlstates::CHECK_VIOLATION};
use crate::world::World;

#[tokio::test]
async fn the_url_of_a_picture_is_http_or_https_or_relative() {
    let world = World::new().await;
    let (author, user) = (world.new_user().await, world.new_user().await);
    let draft_id = world.new_draft_adventure(author.user_id()).await;
    // These are the columns that users may write and whose names suggest a URL. The loop below tests each of them.
    let select_url_columns = "SELECT class.relname || '.' || attname FROM pg_attribute
         JOIN pg_class AS class ON class.oid = attrelid
         WHERE class.relnamespace = 'public'::regnamespace AND relkind = 'r' AND attname ~ 'url|uri|link|href'
           AND has_column_privilege('authenticated', class.oid, attnum, 'INSERT, UPDATE') ORDER BY 1";
    assert_eq!(
        world.owner().fetch_values::<String>(select_url_columns).await.unwrap(),
        ["adventures.artwork_url", "adventures.thumbnail_url", "users.avatar_url"]
    );
    for (caller, column, table, id) in [
        (&user, "avatar_url", "users", user.user_id()),
        (&author, "thumbnail_url", "adventures", draft_id),
        (&author, "artwork_url", "adventures", draft_id),
    ] {
        let mut writes = vec![format!("UPDATE {table} SET {column} = $URL$ WHERE id = '{id}'")];
        if table == "adventures" {
            writes.push(format!("INSERT INTO adventures (name, {column}) VALUES ('Ford', $URL$)"));
        }
        for write in writes {
            for url in [
                "javascript:alert(1)",
                "JavaScript:alert(1)",
                " javascript:alert(1)",
                "java\nscript:alert(1)",
                "\u{1}javascript:alert(1)",
                "javascript://https://x.org/%0aalert(1)",
                "vbscript:x",
                "data:text/html,<script>alert(1)</script>",
                "file:///etc/passwd",
                "blob:https://x.org/1",
                "ftp://x.org/a.png",
                "x:https://x.org",
                "https:x.org",
                "http://",
                "https:///a.png",
                "https:// x.org",
                "https://x.org/a b",
                "https://x.org/\njavascript:alert(1)",
                "x\nhttps://x.org",
                " https://x.org",
            ] {
                assert_refused!(
                    caller.execute(&write.replace("$URL$", &sql_literal(url))).await,
                    CHECK_VIOLATION,
                    &format!("web_{column}"),
                    "{url:?}"
                );
            }
            for url in [
                "https://x.org/a.png?b=c#d",
                "http://x.org",
                "HTTPS://X.org/Ä.png",
                "HtTp://127.0.0.1:8080/",
                "//x.org/a.png",
                "/a.png",
                "avatars/a b:c.png",
                "a.png",
                "",
            ] {
                assert_eq!(caller.execute(&write.replace("$URL$", &sql_literal(url))).await, Ok(1), "{url}");
            }
            assert_eq!(caller.execute(&write.replace("$URL$", "NULL")).await, Ok(1));
        }
    }
}
