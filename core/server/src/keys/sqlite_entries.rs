//! Entries of the catalog, and versions of programs, in a file of SQLite.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::sqlite::{failed, signed, unsigned};
use super::{Entry, Kind, StoreError, Version};

/// The tables of version 2.
pub(super) const TABLES: &str = "
    CREATE TABLE entries (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE versions (
        program TEXT NOT NULL,
        number INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        created INTEGER NOT NULL,
        wasm BLOB NOT NULL,
        PRIMARY KEY (program, number)
    ) STRICT;
    PRAGMA user_version = 2;
";

pub(super) fn entries(connection: &Connection) -> Result<Vec<Entry>, StoreError> {
    let all = "SELECT kind, name, value FROM entries ORDER BY kind, name";
    let mut statement = connection.prepare(all).map_err(failed)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let mut found = Vec::new();
    for row in rows.map_err(failed)? {
        let (kind, name, value): (String, String, String) = row.map_err(failed)?;
        // A kind of a newer Realm is none here.
        let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else { continue };
        let value = serde_json::from_str(&value)
            .map_err(|error| StoreError(format!("the {} `{name}` is no JSON: {error}", kind.as_str())))?;
        found.push(Entry { kind, name, value });
    }
    Ok(found)
}

pub(super) fn put(connection: &Connection, entry: &Entry) -> Result<(), StoreError> {
    let into = "INSERT INTO entries VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET value = ?3";
    let row = params![entry.kind.as_str(), entry.name, entry.value.to_string()];
    connection.execute(into, row).map_err(failed)?;
    Ok(())
}

pub(super) fn remove(connection: &mut Connection, kind: Kind, name: &str) -> Result<bool, StoreError> {
    let work = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let one = "DELETE FROM entries WHERE kind = ?1 AND name = ?2";
    let found = work.execute(one, params![kind.as_str(), name]).map_err(failed)? > 0;
    if kind == Kind::Program {
        work.execute("DELETE FROM versions WHERE program = ?1", [name]).map_err(failed)?;
    }
    work.commit().map_err(failed)?;
    Ok(found)
}

pub(super) fn add_version(
    connection: &mut Connection,
    program: &str,
    version: &Version,
    wasm: &[u8],
    keep: usize,
) -> Result<(), StoreError> {
    let work = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let row = params![program, signed(version.number), version.sha256, signed(version.created), wasm];
    work.execute("INSERT INTO versions VALUES (?1, ?2, ?3, ?4, ?5)", row).map_err(failed)?;
    let old = "DELETE FROM versions WHERE program = ?1 AND number NOT IN
        (SELECT number FROM versions WHERE program = ?1 ORDER BY number DESC LIMIT ?2)";
    work.execute(old, params![program, signed(keep as u64)]).map_err(failed)?;
    let value = version.number.into();
    put(&work, &Entry { kind: Kind::Program, name: program.to_owned(), value })?;
    work.commit().map_err(failed)
}

pub(super) fn versions(connection: &Connection, program: &str) -> Result<Vec<Version>, StoreError> {
    let all = "SELECT number, sha256, created, length(wasm) AS bytes FROM versions WHERE program = ?1
        ORDER BY number";
    let mut statement = connection.prepare(all).map_err(failed)?;
    let rows = statement.query_map([program], |row| {
        Ok(Version {
            number: unsigned(row, "number")?,
            sha256: row.get("sha256")?,
            bytes: unsigned(row, "bytes")?,
            created: unsigned(row, "created")?,
        })
    });
    rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

pub(super) fn wasm(
    connection: &Connection,
    program: &str,
    number: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let one = "SELECT wasm FROM versions WHERE program = ?1 AND number = ?2";
    connection.query_row(one, params![program, signed(number)], |row| row.get(0)).optional().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::{Sqlite, Store};
    use super::*;

    #[test]
    fn entries_and_versions_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        let mut store = Sqlite::open(&path).unwrap();
        let entry = |value: &str| Entry { kind: Kind::Alias, name: "chat".into(), value: value.into() };
        store.put(&entry("small")).unwrap();
        store.put(&entry("big")).unwrap();
        let version = |number: u64| Version { number, sha256: "ab".into(), bytes: 3, created: 7 };
        for number in 1..=4 {
            store.add_version("acme/echo", &version(number), &[number as u8; 3], 3).unwrap();
        }
        drop(store);
        let mut store = Sqlite::open(&path).unwrap();
        let program = Entry { kind: Kind::Program, name: "acme/echo".into(), value: 4.into() };
        assert_eq!(store.entries().unwrap(), [entry("big"), program]);
        assert_eq!(store.versions("acme/echo").unwrap(), [2, 3, 4].map(version));
        assert_eq!(store.wasm("acme/echo", 2).unwrap(), Some(vec![2; 3]));
        assert_eq!(store.wasm("acme/echo", 1).unwrap(), None);
        assert!(store.remove(Kind::Program, "acme/echo").unwrap());
        assert!(!store.remove(Kind::Program, "acme/echo").unwrap());
        assert!(store.versions("acme/echo").unwrap().is_empty());
    }

    #[test]
    fn a_file_of_the_first_version_gets_the_new_tables() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        let key = super::super::Key::create("acme").unwrap().0;
        Sqlite::open(&path).unwrap().add(&key).unwrap();
        let old = Connection::open(&path).unwrap();
        old.execute_batch("DROP TABLE entries; DROP TABLE versions; PRAGMA user_version = 1").unwrap();
        drop(old);
        let mut store = Sqlite::open(&path).unwrap();
        assert_eq!(store.keys().unwrap(), [key]);
        assert!(store.entries().unwrap().is_empty());
    }
}
