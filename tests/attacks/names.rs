//! Users cannot write names that are invisible, nor names with hidden characters: control characters, line breaks,
//! characters that reverse the text, and some that have no width. Such characters could make a name look like another
//! one, or spread it over several lines. A sign-up with such a name succeeds with a cleaned one.

use uuid::Uuid;

use super::{attempt, sql_outcome, sqlstates::CHECK_VIOLATION};
use crate::world::{SqlCaller, World};

/// Characters that no name may contain.
const FORBIDDEN_CHARACTERS: &[char] = &[
    '\u{1}', '\u{7}', '\u{8}', '\t', '\n', '\u{b}', '\u{c}', '\r', '\u{1b}', '\u{1f}', '\u{7f}', '\u{80}', '\u{85}',
    '\u{9f}', '\u{200b}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
];

/// Names without a visible character: spaces, joiners, controls, fillers, variation selectors, marks that stack
/// consonants (invisible viramas), and noncharacters.
const INVISIBLE_NAMES: &[&str] = &[
    "     ",
    "\u{a0}\u{a0}\u{a0}",
    "\u{1680}\u{1680}\u{1680}",
    "\u{2000}\u{2001}\u{2002}\u{2003}",
    "\u{2004}\u{2005}\u{2006}\u{2007}",
    "\u{2008}\u{2009}\u{200a}",
    "\u{202f}\u{202f}\u{202f}",
    "\u{205f}\u{205f}\u{205f}",
    "\u{3000}\u{3000}\u{3000}",
    "\u{200d}\u{200d}\u{200d}",
    "\u{200c}\u{200d}\u{200c}",
    " \u{200d} ",
    "\u{2800}\u{2800}\u{2800}",
    "\u{3164}\u{3164}\u{3164}",
    "\u{115f}\u{1160}\u{115f}",
    "\u{ffa0}\u{ffa0}\u{ffa0}",
    "\u{ad}\u{ad}\u{ad}",
    "\u{34f}\u{34f}\u{34f}",
    "\u{180e}\u{180e}\u{180e}",
    "\u{2060}\u{2060}\u{2060}",
    "\u{2061}\u{2062}\u{2063}\u{2064}",
    "\u{fe0f}\u{fe0f}\u{fe0f}",
    "\u{e0100}\u{e0100}\u{e0100}",
    "\u{e0020}\u{e0041}\u{e007f}",
    "\u{200e}\u{200f}\u{61c}",
    " \u{a0}\u{3000}\u{200d}\u{fe0f}",
    "\u{13441}\u{13442}\u{13441}",
    "\u{13442}\u{13442}\u{13442}",
    "\u{13430}\u{13438}\u{1343f}",
    "\u{2d7f}\u{2d7f}\u{2d7f}",
    "\u{17d2}\u{1039}\u{1a60}",
    "\u{fdd0}\u{fdef}\u{fffe}",
];

/// Ranges of invisible code points, in hexadecimal: spaces and controls (categories Zs, Zl, Zp and Cc), what Unicode
/// calls default ignorable, invisible viramas (marks that stack consonants), the blanks and joiners of some scripts,
/// and the noncharacters and specials U+FDD0 to U+FDEF and U+FFF0 to U+FFFF (except U+FFFC and U+FFFD, which are
/// visible).
const INVISIBLE_RANGES: &str = "1-20 7f-a0 ad 34f 61c 1039 115f-1160 1680 17b4-17b5 17d2 180b-180f 1a60 2000-200f \
    2028-202f 205f-206f 2800 2d7f 3000 3164 aaf6 fdd0-fdef fe00-fe0f feff ffa0 fff0-fffb fffe-ffff 10a3f 1107f \
    11133 113d0 1193e 11a47 11a99 11d45 11d97 11f42 13430-1343f 13441-13442 16fe4 1bca0-1bca3 1d159 \
    1d173-1d17a e0000-e0fff";

/// Returns the first and the last code point of each of [`INVISIBLE_RANGES`].
fn invisible_ranges() -> Vec<(u32, u32)> {
    let code_point = |hex: &str| u32::from_str_radix(hex, 16).unwrap();
    INVISIBLE_RANGES
        .split(' ')
        .map(|range| range.split_once('-').unwrap_or((range, range)))
        .map(|(first, last)| (code_point(first), code_point(last)))
        .collect()
}

/// Texts that are accepted as names, unless they are too short for the column.
const VALID_NAMES: &[&str] = &[
    "Ada",
    "O'Brien-Łukasz",
    "Zoë Ångström",
    "Владимир",
    "Ελένη",
    "محمد علی",
    "می\u{200c}خواهم",
    "שָׁלוֹם",
    "नरेन्द्र",
    "क्\u{200d}ष",
    "สมชาย",
    "王小明",
    "山田 太郎",
    "김철수",
    "ᏣᎳᎩ",
    "አበበ",
    "தமிழ்",
    "မြန်မာ",
    "👩\u{200d}🚀 Ada",
    "👨\u{200d}👩\u{200d}👧",
    "🏳\u{fe0f}\u{200d}🌈🏴",
    "🇩🇪🇫🇷",
    "e\u{301}e\u{301}",
    "Ada\u{3000}Lovelace",
    "Ada\u{a0}Lovelace",
    "𝕬𝖉𝖆",
    "!?*",
    "42",
    "A\u{200d}B",
    "❤\u{fe0f}❤\u{fe0f}",
];

/// A column for a name that a client may write.
struct NameColumn {
    label: &'static str,
    writer: SqlCaller,
    /// Statements that write the column, with `$NAME$` in place of the name. The first one updates the row that
    /// `select_name` reads.
    writes: Vec<String>,
    /// A query that reads the name.
    select_name: String,
}

async fn name_columns(world: &World) -> Vec<NameColumn> {
    let game = world.new_session(1).await;
    let (player, seer) = (&game.players[0], &game.seer);
    let draft_adventure = world.new_draft_adventure(seer.user_id()).await;
    let sql = format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_adventure}', 'Rat') RETURNING id");
    let creature: Uuid = world.owner().fetch_value(&sql).await.unwrap();
    let update =
        |table: &str, column: &str, id: Uuid| format!("UPDATE {table} SET {column} = $NAME$ WHERE id = '{id}'");
    vec![
        NameColumn {
            label: "display name",
            writer: player.caller.clone(),
            writes: vec![update("users", "display_name", player.user_id)],
            select_name: format!("SELECT display_name FROM users WHERE id = '{}'", player.user_id),
        },
        NameColumn {
            label: "character",
            writer: player.caller.clone(),
            writes: vec![
                update("characters", "name", player.character_id),
                format!(
                    "INSERT INTO characters (user_id, name, class, might, grace, wit, heart, special_ability)
                     VALUES ('{}', $NAME$, 'warrior', 5, 3, 2, 2, '{{}}')",
                    player.user_id
                ),
            ],
            select_name: format!("SELECT name FROM characters WHERE id = '{}'", player.character_id),
        },
        NameColumn {
            label: "adventure",
            writer: seer.clone(),
            writes: vec![
                update("adventures", "name", draft_adventure),
                format!("INSERT INTO adventures (creator_id, name) VALUES ('{}', $NAME$)", seer.user_id()),
            ],
            select_name: format!("SELECT name FROM adventures WHERE id = '{draft_adventure}'"),
        },
        NameColumn {
            label: "creature",
            writer: seer.clone(),
            writes: vec![
                update("creatures", "name", creature),
                format!("INSERT INTO creatures (adventure_id, name) VALUES ('{draft_adventure}', $NAME$)"),
            ],
            select_name: format!("SELECT name FROM creatures WHERE id = '{creature}'"),
        },
    ]
}

/// Quotes any text as an SQL literal.
pub(super) fn sql_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn no_client_writes_a_deceptive_or_invisible_name() {
    let world = World::new().await;
    for column in name_columns(&world).await {
        for write in &column.writes {
            for forbidden in FORBIDDEN_CHARACTERS {
                for text in [
                    format!("Ada{forbidden}Lovelace"),
                    format!("{forbidden}Ada Lovelace"),
                    format!("Ada Lovelace{forbidden}"),
                ] {
                    let outcome = column.writer.execute(&write.replace("$NAME$", &sql_literal(&text))).await;
                    let is_refused =
                        outcome.as_ref().err().is_some_and(|refusal| refusal.has(CHECK_VIOLATION, "displayable_name"));
                    assert!(is_refused, "{}: {text:?}: {outcome:?}", column.label);
                }
            }
            for text in INVISIBLE_NAMES {
                let outcome = column.writer.execute(&write.replace("$NAME$", &sql_literal(text))).await;
                let is_refused =
                    outcome.as_ref().err().is_some_and(|refusal| refusal.has(CHECK_VIOLATION, "displayable_name"));
                assert!(is_refused, "{}: {text:?}: {outcome:?}", column.label);
            }
        }
    }
}

#[tokio::test]
async fn a_name_of_invisible_code_points_is_refused_and_any_other_code_point_is_accepted_as_a_name() {
    let world = World::new().await;
    for (first, last) in invisible_ranges() {
        // 12288 is the ideographic space, and 10240 the blank Braille pattern.
        for name in
            ["chr(point)", "' ' || chr(point)", "repeat(chr(point), 40)", "chr(12288) || chr(point) || chr(10240)"]
        {
            let accepted_code_points =
                format!("generate_series({first}, {last}) AS point WHERE private.is_displayable_name({name})");
            assert_eq!(world.owner().count(&accepted_code_points).await, 0, "{first:x} to {last:x}: {name}");
        }
    }
    // Every other code point (up to 1114111, U+10FFFF) is accepted as a whole name, except the surrogates (55296 to
    // 57343), which are not characters, and U+FFFC and U+FFFD (65532 and 65533), which are visible but are in a range
    // that `private.is_blank` refuses as a whole.
    let visible_conditions: Vec<String> =
        invisible_ranges().iter().map(|(first, last)| format!("point NOT BETWEEN {first} AND {last}")).collect();
    let refused_code_points = format!(
        "generate_series(1, 1114111) AS point WHERE point NOT BETWEEN 55296 AND 57343 AND {}
           AND NOT private.is_displayable_name(chr(point)) AND point NOT IN (65532, 65533)",
        visible_conditions.join(" AND ")
    );
    assert_eq!(world.owner().count(&refused_code_points).await, 0);
}

#[tokio::test]
async fn the_source_of_a_modifier_has_a_visible_character() {
    let world = World::new().await;
    let game = world.new_active_session(1).await;
    let player = &game.players[0];
    let insert_roll = |source: &str| {
        let modifiers = serde_json::json!([{ "type": "flat", "value": 1, "source": source }]).to_string();
        format!(
            "INSERT INTO dice_rolls (session_id, character_id, attribute, difficulty, roll_type, modifiers)
             VALUES ('{}', '{}', 'might', 10, 'attribute_check', {})",
            game.session_id,
            player.character_id,
            sql_literal(&modifiers)
        )
    };
    for source in
        INVISIBLE_NAMES.iter().copied().chain(["", " ", "\t", "\n\r", "\u{3000}\t", "\u{200b}", "\u{feff}\u{2028}"])
    {
        assert_refused!(
            player.caller.execute(&insert_roll(source)).await,
            CHECK_VIOLATION,
            "valid_modifiers",
            "{source:?}"
        );
    }
    for source in VALID_NAMES {
        assert_eq!(player.caller.execute(&insert_roll(source)).await, Ok(1), "{source:?}");
    }
}

#[tokio::test]
async fn names_in_many_scripts_are_stored_unchanged() {
    let world = World::new().await;
    for column in name_columns(&world).await {
        for name in VALID_NAMES {
            let update = column.writes[0].replace("$NAME$", &sql_literal(name));
            let outcome = column.writer.execute(&update).await;
            // The columns have different minimum lengths, but no minimum is above three characters. So a name of one or
            // two characters may be refused, and its outcome is not checked.
            if name.chars().count() < 3 {
                continue;
            }
            assert_eq!(sql_outcome(outcome), "done", "{}: {name:?}", column.label);
            let stored_name: String = column.writer.fetch_value(&column.select_name).await.unwrap();
            assert_eq!(stored_name, *name, "{}", column.label);
        }
    }
}

#[tokio::test]
async fn a_sign_up_with_a_deceptive_or_invisible_name_succeeds_with_a_cleaned_name() {
    let world = World::new().await;
    let mut names: Vec<String> =
        FORBIDDEN_CHARACTERS.iter().map(|forbidden| format!("Ada{forbidden}Lovelace")).collect();
    names.extend(INVISIBLE_NAMES.iter().map(|text| (*text).to_owned()));
    names.push(FORBIDDEN_CHARACTERS.iter().collect());
    names.push("\u{202e}".repeat(500));
    names.push(format!("{}\n", "x".repeat(99)));
    for text in &names {
        for key in ["display_name", "full_name", "name"] {
            let metadata = serde_json::json!({ key: text }).to_string();
            let id = Uuid::new_v4();
            let sql = format!(
                "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ('{id}', '{id}@example.org', {})",
                sql_literal(&metadata)
            );
            assert_eq!(attempt(&world.owner(), &sql).await, "done", "{text:?}");
            let select_name = format!("SELECT display_name FROM users WHERE id = '{id}'");
            let name: String = world.owner().fetch_value(&select_name).await.unwrap();
            assert!(!name.contains(FORBIDDEN_CHARACTERS), "{text:?} becomes {name:?}");
            // The cleaned name is one that a user may write.
            let rename = format!("UPDATE users SET display_name = {} WHERE id = '{id}'", sql_literal(&name));
            assert_eq!(attempt(&world.user(id), &rename).await, "done", "{text:?} becomes {name:?}");
            if text.starts_with("Ada") {
                assert!(name.starts_with("Ada") && name.ends_with("Lovelace"), "{text:?} becomes {name:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_sign_up_ignores_invalid_names_and_urls_in_its_metadata() {
    let world = World::new().await;
    for value in ["42", "true", "null", "[\"Ada\"]", "{\"name\": \"Ada\"}", "\"\""] {
        let id = Uuid::new_v4();
        let metadata = format!("{{\"display_name\": {value}, \"avatar_url\": {value}, \"full_name\": \"Grace\"}}");
        let sql = format!(
            "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ('{id}', '{id}@example.org', '{metadata}')"
        );
        assert_eq!(attempt(&world.owner(), &sql).await, "done", "{value}");
        let select_name = format!("SELECT display_name FROM users WHERE id = '{id}' AND avatar_url IS NULL");
        assert_eq!(world.owner().fetch_value::<String>(&select_name).await.unwrap(), "Grace", "{value}");
    }
    for (url, is_kept) in [
        ("https://example.org/a.png", true),
        ("http://example.org/a.png", true),
        ("javascript:alert(1)", false),
        ("data:image/png;base64,AAAA", false),
        // Users may later set a URL without a scheme, but in the metadata of a sign-up such a URL is ignored.
        ("//example.org/a.png", false),
        ("HTTPS://example.org/a.png", true),
        (" https://example.org", false),
        // The rule for deceptive characters is a rule for names, not for URLs.
        ("https://example.org/\u{202e}gnp", true),
    ] {
        let id = Uuid::new_v4();
        let metadata = serde_json::json!({ "avatar_url": url }).to_string();
        let sql = format!(
            "INSERT INTO auth.users (id, email, raw_user_meta_data) VALUES ('{id}', '{id}@example.org', {})",
            sql_literal(&metadata)
        );
        assert_eq!(attempt(&world.owner(), &sql).await, "done", "{url}");
        let avatar_count = world.owner().count(&format!("users WHERE id = '{id}' AND avatar_url IS NOT NULL")).await;
        assert_eq!(avatar_count == 1, is_kept, "{url}");
    }
    let id = Uuid::new_v4();
    let too_long_url = format!("https://example.org/{}", "a".repeat(3000));
    let sql = format!(
        "INSERT INTO auth.users (id, email, raw_user_meta_data)
         VALUES ('{id}', '{id}@example.org', '{{\"avatar_url\": \"{too_long_url}\"}}')"
    );
    assert_eq!(attempt(&world.owner(), &sql).await, "done");
    assert_eq!(world.owner().count(&format!("users WHERE id = '{id}' AND avatar_url IS NULL")).await, 1);
}
