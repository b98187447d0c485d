//! `docs/database.md`, from the catalog of a real server after all migrations, and from their comments.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use framehook_tests::{root, servers::postgres_url};
use serde::Deserialize;

use super::{commented, head, header, row};

const MIGRATIONS: &str = "migrations/postgres";

/// In a schema of its own, in a transaction that is taken back: nothing stays on the server.
const BEGIN: &str = "BEGIN; CREATE SCHEMA framehook_docs; SET search_path = framehook_docs;\n";

/// The tables in the order they were made; partitions are not tables of their own here.
const CATALOG: &str = "
SELECT json_agg(json_build_object(
    'name', c.relname,
    'partitions', pg_get_partkeydef(c.oid),
    'columns', (
        SELECT json_agg(json_build_object(
            'name', a.attname,
            'kind', format_type(a.atttypid, a.atttypmod),
            'nullable', NOT a.attnotnull,
            'default', CASE WHEN a.attidentity <> '' THEN 'counts up' ELSE pg_get_expr(d.adbin, d.adrelid) END
        ) ORDER BY a.attnum)
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'constraints', (
        SELECT coalesce(json_agg(json_build_object(
            'kind', k.contype,
            'columns', (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum = ANY (k.conkey)),
            'definition', pg_get_constraintdef(k.oid),
            'references', (SELECT r.relname FROM pg_class r WHERE r.oid = k.confrelid)
        ) ORDER BY k.contype, k.conname), '[]')
        FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c')),
    'indices', (
        SELECT coalesce(json_agg(json_build_object(
            'name', i.relname,
            'definition', pg_get_indexdef(i.oid, 0, true)
        ) ORDER BY x.indisprimary DESC, i.relname), '[]')
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid)
) ORDER BY c.oid)
FROM pg_class c
WHERE c.relnamespace = 'framehook_docs'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition;
ROLLBACK;
";

#[derive(Deserialize)]
struct Table {
    name: String,
    partitions: Option<String>,
    columns: Vec<Column>,
    constraints: Vec<Constraint>,
    indices: Vec<Index>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    kind: String,
    nullable: bool,
    default: Option<String>,
}

#[derive(Deserialize)]
struct Constraint {
    kind: char,
    columns: Vec<String>,
    definition: String,
    references: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    name: String,
    definition: String,
}

pub(super) fn document() -> String {
    let migrations = migrations();
    let (tables, comments) = (catalog(&migrations), comments(&migrations));
    let about = |name: &str| comments.get(name).map_or("", String::as_str);
    [
        head("Database", &format!("`{MIGRATIONS}/`, as PostgreSQL understands it")),
        "The store of a cluster. `framehook up` keeps the same tables in SQLite, without partitions. Times are \
         microseconds since the Unix epoch by the database's clock; structured values are JSON as text.\n\n```mermaid\n"
            .to_owned(),
        diagram(&tables),
        "```\n\nResults refer to their scenario without a foreign key: it would be looked up for each frame.\n"
            .to_owned(),
        tables.iter().map(|table| section(table, about)).collect(),
    ]
    .concat()
}

fn migrations() -> String {
    let folder = fs::read_dir(root().join(MIGRATIONS)).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect::<Vec<_>>().join("\n")
}

/// What a server makes of the migrations.
fn catalog(migrations: &str) -> Vec<Table> {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
    command.args(["--dbname", &postgres_url()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut psql = command.spawn().expect("psql is missing: run scripts/setup.sh --tests");
    let script = [BEGIN, migrations, CATALOG].concat();
    // Dropped, and so closed: psql ends at the end of its input.
    psql.stdin.take().expect("it is piped").write_all(script.as_bytes()).unwrap();
    let output = psql.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the migrations say above a table, a column (as `table.column`) or an index.
fn comments(migrations: &str) -> BTreeMap<String, String> {
    let mut comments = BTreeMap::new();
    let mut table = String::new();
    for (line, comment) in commented(migrations, "--") {
        let words: Vec<_> = line.split_whitespace().filter(|w| *w != "UNIQUE").collect();
        let name = match words[..] {
            ["CREATE", "TABLE", name, ..] => {
                name.clone_into(&mut table);
                name.to_owned()
            }
            ["CREATE", "INDEX", name, ..] => name.to_owned(),
            ["ALTER", "TABLE", name, "ADD", "COLUMN", column, ..] => format!("{name}.{column}"),
            [column, ..] => format!("{table}.{}", column.trim_matches('"')),
            [] => continue,
        };
        if !comment.is_empty() {
            comments.insert(name, comment);
        }
    }
    comments
}

fn diagram(tables: &[Table]) -> String {
    let mut text = String::from("erDiagram\n");
    for table in tables {
        for key in table.constraints.iter().filter(|c| c.kind == 'f') {
            let (other, columns) = (key.references.as_deref().unwrap_or_default(), key.columns.join(", "));
            text += &format!("    {other} ||--o{{ {} : {columns}\n", table.name);
        }
    }
    for table in tables {
        text += &format!("    {} {{\n", table.name);
        for column in &table.columns {
            let keys = keys(table, &column.name).join(", ");
            text += format!("        {} {} {keys}", column.kind.replace(' ', "_"), column.name).trim_end();
            text.push('\n');
        }
        text += "    }\n";
    }
    text
}

/// As Mermaid calls them.
fn keys(table: &Table, column: &str) -> Vec<&'static str> {
    let is_of = |kind: char| table.constraints.iter().any(|c| c.kind == kind && c.columns.iter().any(|n| n == column));
    [('p', "PK"), ('f', "FK"), ('u', "UK")].into_iter().filter(|(kind, _)| is_of(*kind)).map(|(_, key)| key).collect()
}

fn section<'a>(table: &Table, about: impl Fn(&str) -> &'a str) -> String {
    let mut text = format!("\n## {}\n\n", table.name);
    if !about(&table.name).is_empty() {
        text += &format!("{}\n\n", about(&table.name));
    }
    if let Some(partitions) = &table.partitions {
        text += &format!("Partitioned by `{partitions}`.\n\n");
    }
    text += &header(&["column", "type", "null", "default", "meaning"]);
    for column in &table.columns {
        let default = column.default.as_deref().map(|d| format!("`{}`", plain(d))).unwrap_or_default();
        let null = if column.nullable { "yes" } else { "" };
        let about = about(&format!("{}.{}", table.name, column.name));
        text += &row(&[&format!("`{}`", column.name), &column.kind, null, &default, about]);
    }
    text += "\nIndices:\n\n";
    for index in &table.indices {
        let about = Some(about(&index.name)).filter(|a| !a.is_empty()).map(|a| format!(": {a}")).unwrap_or_default();
        text += &format!("- `{}`{about}\n", plain(&index.definition));
    }
    let checks: Vec<_> = table.constraints.iter().filter(|c| matches!(c.kind, 'c' | 'f')).collect();
    if !checks.is_empty() {
        text += "\nConstraints:\n\n";
        text += &checks.iter().map(|c| format!("- `{}`\n", plain(&c.definition))).collect::<String>();
    }
    text
}

/// Without what the server adds to what was written.
fn plain(definition: &str) -> String {
    definition.replace("::text", "").replace("framehook_docs.", "").replace(" USING btree", "")
}
