//! `cargo entities`: regenerates `entity/src/tables` and the diagram in `docs/generated/` from a database that it
//! migrates.
//!
//! It runs sea-orm-cli's `generate entity`. Then it removes a relation that the generator adds by mistake, adds the
//! attributes that derive JSON Schema, and turns the comments of tables and columns into documentation.

use std::{error::Error, fs, path::Path};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use sea_orm_cli::{BannerVersion, BigIntegerType, DateTimeCrate, GenerateSubcommands, run_generate_command};
use testdb::Server;

/// The foreign key `users.account_id -> auth.users.id` crosses schemas, but the generator sees only the tables' names
/// and takes it for a relation of `users` with itself. These are the lines of that relation, which are removed from
/// `users.rs`.
const FALSE_RELATION: &str = r#"    #[sea_orm(
        self_ref,
        relation_enum = "SelfRef",
        from = "account_id",
        to = "id",
        on_update = "NoAction",
        on_delete = "SetNull"
    )]
    pub users: BelongsTo<Option<Entity>>,
"#;

/// The attribute that derives JSON Schema. The generator adds it to each enum. For tables, the generator would also put
/// the attribute on `ModelEx`, which contains the relations, so [`add_json_schema`] adds it to each `Model` instead.
const ENUM_JSON_SCHEMA_ATTRIBUTE: &str = r#"cfg_attr(feature = "schema", derive(schemars::JsonSchema))"#;

/// The line of the false relation in the diagram.
const FALSE_RELATION_IN_DIAGRAM: &str = "    users }o--|| users : \"account_id\"\n";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the workspace folder was not found")?;
    // The server of `DATABASE_URL` is not used, because its new databases may contain objects that do not belong to the
    // schema: copies of those in its database `template1`.
    let server = Server::start_plain(None).await?;
    let database = server.create_migrated().await?;
    let folder = tempfile::tempdir()?;
    run_generate_command(generate_command(database.url(), folder.path()), false).await?;

    let users_file = folder.path().join("users.rs");
    let users_source = fs::read_to_string(&users_file)?;
    fs::write(&users_file, remove_false_relation(&users_source, FALSE_RELATION)?)?;

    add_json_schema(folder.path())?;
    add_documentation(folder.path(), database.url()).await?;

    let diagram_path = folder.path().join("entities.mermaid");
    let diagram = fs::read_to_string(&diagram_path)?;
    let diagram = remove_false_relation(&diagram, FALSE_RELATION_IN_DIAGRAM)?;
    fs::write(workspace.join("docs/generated/entities.mermaid"), diagram)?;
    fs::remove_file(diagram_path)?;
    let tables_folder = workspace.join("entity/src/tables");
    if tables_folder.exists() {
        fs::remove_dir_all(&tables_folder)?;
    }
    fs::create_dir_all(&tables_folder)?;
    for file in fs::read_dir(folder.path())? {
        let file = file?;
        fs::copy(file.path(), tables_folder.join(file.file_name()))?;
    }
    Ok(())
}

/// Removes the lines of the false relation, which the text must contain exactly once.
fn remove_false_relation(text: &str, lines: &str) -> Result<String, String> {
    if text.matches(lines).count() != 1 {
        return Err(format!(
            "the generator's output must contain these lines of the false relation exactly once; if the generator has \
             been fixed, remove this step:\n{lines}"
        ));
    }
    Ok(text.replace(lines, ""))
}

/// Derives JSON Schema for the model in each generated file; files without a model stay as they are. The JSON Schema
/// gets the name of the table, because every struct is called `Model`.
fn add_json_schema(folder: &Path) -> Result<(), Box<dyn Error>> {
    for file in fs::read_dir(folder)? {
        let file = file?.path();
        let Some(table) = file.file_stem().and_then(|name| name.to_str()) else { continue };
        let table_attribute = format!("#[sea_orm(schema_name = \"public\", table_name = \"{table}\")]\n");
        let generated = fs::read_to_string(&file)?;
        if generated.contains("pub struct Model") && !generated.contains(&table_attribute) {
            return Err(format!("{} does not have the attribute {table_attribute}", file.display()).into());
        }
        let json_schema_attribute = format!(
            "#[sea_orm(model_attrs(cfg_attr(\n    feature = \"schema\",\n    derive(schemars::JsonSchema),\n    \
             schemars(rename = \"{table}\")\n)))]\n"
        );
        fs::write(&file, generated.replace(&table_attribute, &format!("{table_attribute}{json_schema_attribute}")))?;
    }
    Ok(())
}

/// Adds the comments of tables and columns, which the generator omits, as documentation of structs and fields.
async fn add_documentation(folder: &Path, url: &str) -> Result<(), Box<dyn Error>> {
    let db = sea_orm::Database::connect(url).await?;
    // The comment of a table itself has an empty column name.
    let sql = "SELECT relname::text, coalesce(attname, '')::text, description
         FROM pg_description
         JOIN pg_class ON pg_class.oid = objoid AND relnamespace = 'public'::regnamespace
         LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid AND objsubid > 0
         WHERE classoid = 'pg_class'::regclass";
    let rows = db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    for row in rows {
        let (table, column, comment): (String, String, String) =
            (row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?);
        let file = folder.join(format!("{table}.rs"));
        if !file.exists() {
            // The comment of an object in `pg_class` that has no model, such as an index.
            continue;
        }
        let mut lines: Vec<String> = fs::read_to_string(&file)?.lines().map(str::to_owned).collect();
        let declaration = if column.is_empty() { "pub struct Model".to_owned() } else { format!("    pub {column}:") };
        // The declaration of a column whose name is a keyword of Rust.
        let raw_declaration = format!("    pub r#{column}:");
        let declares = |line: &String| line.starts_with(&declaration) || line.starts_with(&raw_declaration);
        let Some(mut index) = lines.iter().position(declares) else {
            return Err(format!("{table}.{column} has a comment, but no field was generated for it").into());
        };
        // The documentation of a field goes before the field's attributes. (That of a table goes directly before `pub
        // struct`: the line above is `)))]`, the end of the attribute from `add_json_schema`.)
        while index > 0 && lines[index - 1].trim_start().starts_with("#[") {
            index -= 1;
        }
        let indent = if column.is_empty() { "" } else { "    " };
        lines.insert(index, format!("{indent}/// {comment}"));
        fs::write(&file, lines.join("\n") + "\n")?;
    }
    db.close().await?;
    Ok(())
}

/// Returns the command `sea-orm-cli generate entity` with the options of this workspace.
fn generate_command(url: &str, folder: &Path) -> GenerateSubcommands {
    GenerateSubcommands::Entity {
        entity_format: Some("dense".to_owned()),
        compact_format: false,
        expanded_format: false,
        frontend_format: false,
        include_hidden_tables: false,
        tables: Vec::new(),
        ignore_tables: vec!["sparc_migrations".to_owned()],
        max_connections: 1,
        acquire_timeout: 30,
        output_dir: folder.display().to_string(),
        database_schema: Some("public".to_owned()),
        database_url: url.to_owned(),
        with_prelude: "all".to_owned(),
        with_serde: "both".to_owned(),
        serde_skip_deserializing_primary_key: false,
        serde_skip_hidden_column: false,
        with_copy_enums: true,
        date_time_crate: DateTimeCrate::Chrono,
        big_integer_type: BigIntegerType::I64,
        lib: false,
        model_extra_derives: Vec::new(),
        model_extra_attributes: Vec::new(),
        enum_extra_derives: Vec::new(),
        // Enum values have the same names in JSON as in the database.
        enum_extra_attributes: vec![
            ENUM_JSON_SCHEMA_ATTRIBUTE.to_owned(),
            r#"serde(rename_all = "snake_case")"#.to_owned(),
        ],
        column_extra_derives: Vec::new(),
        seaography: false,
        impl_active_model_behavior: true,
        preserve_user_modifications: false,
        banner_version: BannerVersion::Minor,
        er_diagram: true,
    }
}
