//! Keys in a file of SQLite.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::sqlite_entries as kept;
use super::{Entry, Key, Kind, Scope, Store, StoreError, Used, Version};
use crate::limits::Rates;

/// The version of the tables, in `PRAGMA user_version`. The first had no entries.
const VERSION: i64 = 2;

/// Lists are JSON. Times are seconds since 1970.
const TABLES: &str = "
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        hash BLOB NOT NULL,
        tenant TEXT NOT NULL,
        note TEXT NOT NULL,
        scopes TEXT NOT NULL,
        models TEXT,
        requests_per_minute INTEGER,
        tokens_per_minute INTEGER,
        concurrent_requests INTEGER,
        created INTEGER NOT NULL,
        expires INTEGER,
        revoked INTEGER
    ) STRICT;
    CREATE TABLE usage (
        key TEXT NOT NULL,
        day INTEGER NOT NULL,
        requests INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        generated_tokens INTEGER NOT NULL,
        PRIMARY KEY (key, day)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// The time that a call waits for another process to end its writing.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file of SQLite. Several processes may have it open: the server, and `realm api-key`.
pub struct Sqlite {
    connection: Connection,
    /// The last `PRAGMA data_version`, which changes when another connection writes.
    version: i64,
}

impl Sqlite {
    /// Opens a file; creates it if there is none, readable by its owner alone.
    ///
    /// # Errors
    /// The file can't be opened, is no database of keys, or was written by a newer Realm.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = || {
            create(path)?;
            let mut connection = Connection::open(path).map_err(failed)?;
            connection.busy_timeout(PATIENCE).map_err(failed)?;
            connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
            let start =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            match start.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)? {
                0 => {
                    start.execute_batch(TABLES).map_err(failed)?;
                    start.execute_batch(kept::TABLES).map_err(failed)?;
                }
                1 => start.execute_batch(kept::TABLES).map_err(failed)?,
                VERSION => {}
                other => {
                    let why = format!(
                        "it has tables of version {other}, and this Realm knows {VERSION}: use a newer one"
                    );
                    return Err(StoreError(why));
                }
            }
            start.commit().map_err(failed)?;
            let mut this = Self { connection, version: 0 };
            this.changed()?;
            Ok(this)
        };
        open()
            .map_err(|StoreError(why)| StoreError(format!("the file of API keys {}: {why}", path.display())))
    }
}

/// Creates a file that only its owner may read. SQLite gives its other files the same rights.
fn create(path: &Path) -> Result<(), StoreError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError(error.to_string())),
    }
}

pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    StoreError(error.to_string())
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(T::to_string).collect();
    serde_json::json!(items).to_string()
}

fn insert(connection: &Connection, key: &Key) -> Result<(), StoreError> {
    let Key { id, hash, tenant, note, scopes, models, rates, created, expires } = key;
    let row = params![
        id,
        hash,
        tenant,
        note,
        list(scopes),
        models.as_deref().map(list),
        rates.requests_per_minute,
        rates.tokens_per_minute,
        rates.concurrent_requests,
        signed(*created),
        expires.map(signed),
    ];
    let into = "INSERT INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, NULL)";
    connection.execute(into, row).map_err(failed)?;
    Ok(())
}

/// SQLite's integers are signed.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Key> {
    let texts = |text: String| serde_json::from_str::<Vec<String>>(&text).unwrap_or_default();
    let scopes: String = row.get("scopes")?;
    let models: Option<String> = row.get("models")?;
    Ok(Key {
        id: row.get("id")?,
        hash: row.get("hash")?,
        tenant: row.get("tenant")?,
        note: row.get("note")?,
        // A scope of a newer Realm allows nothing here.
        scopes: texts(scopes).iter().filter_map(|name| name.parse::<Scope>().ok()).collect(),
        models: models.map(texts),
        rates: Rates {
            requests_per_minute: row.get("requests_per_minute")?,
            tokens_per_minute: row.get("tokens_per_minute")?,
            concurrent_requests: row.get("concurrent_requests")?,
        },
        created: unsigned(row, "created")?,
        expires: row.get::<_, Option<i64>>("expires")?.map(|time| u64::try_from(time).unwrap_or(0)),
    })
}

impl Store for Sqlite {
    fn keys(&mut self) -> Result<Vec<Key>, StoreError> {
        let all = "SELECT * FROM keys WHERE revoked IS NULL ORDER BY created, rowid";
        let mut statement = self.connection.prepare(all).map_err(failed)?;
        let rows = statement.query_map([], read).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    fn add(&mut self, key: &Key) -> Result<(), StoreError> {
        insert(&self.connection, key)
    }

    fn revoke(&mut self, id: &str) -> Result<bool, StoreError> {
        let update = "UPDATE keys SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL";
        Ok(self.connection.execute(update, params![id, signed(super::now())]).map_err(failed)? > 0)
    }

    fn rotate(&mut self, old: &str, key: &Key, expires: u64) -> Result<bool, StoreError> {
        let work =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let update =
            "UPDATE keys SET expires = min(coalesce(expires, ?2), ?2) WHERE id = ?1 AND revoked IS NULL";
        let found = work.execute(update, params![old, signed(expires)]).map_err(failed)? > 0;
        if found {
            insert(&work, key)?;
        }
        work.commit().map_err(failed)?;
        Ok(found)
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        let version =
            self.connection.query_row("PRAGMA data_version", [], |row| row.get(0)).map_err(failed)?;
        Ok(std::mem::replace(&mut self.version, version) != version)
    }

    fn add_usage(&mut self, day: u64, used: &[(String, Used)]) -> Result<(), StoreError> {
        let work =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let add = "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (key, day) DO UPDATE SET
            requests = requests + ?3, prompt_tokens = prompt_tokens + ?4,
            cached_tokens = cached_tokens + ?5, generated_tokens = generated_tokens + ?6";
        let mut statement = work.prepare(add).map_err(failed)?;
        for (key, used) in used {
            let Used { requests, prompt_tokens, cached_tokens, generated_tokens } = *used;
            let row = params![
                key,
                signed(day),
                signed(requests),
                signed(prompt_tokens),
                signed(cached_tokens),
                signed(generated_tokens)
            ];
            statement.execute(row).map_err(failed)?;
        }
        drop(statement);
        work.commit().map_err(failed)
    }

    fn usage(&mut self) -> Result<Vec<(String, Used)>, StoreError> {
        let all = "SELECT key, sum(requests) AS requests, sum(prompt_tokens) AS prompt_tokens,
            sum(cached_tokens) AS cached_tokens, sum(generated_tokens) AS generated_tokens FROM usage GROUP BY key";
        let mut statement = self.connection.prepare(all).map_err(failed)?;
        let rows = statement.query_map([], |row| {
            let used = Used {
                requests: unsigned(row, "requests")?,
                prompt_tokens: unsigned(row, "prompt_tokens")?,
                cached_tokens: unsigned(row, "cached_tokens")?,
                generated_tokens: unsigned(row, "generated_tokens")?,
            };
            Ok((row.get("key")?, used))
        });
        rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, StoreError> {
        kept::entries(&self.connection)
    }

    fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        kept::put(&self.connection, entry)
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Result<bool, StoreError> {
        kept::remove(&mut self.connection, kind, name)
    }

    fn add_version(
        &mut self,
        program: &str,
        version: &Version,
        wasm: &[u8],
        keep: usize,
    ) -> Result<(), StoreError> {
        kept::add_version(&mut self.connection, program, version, wasm, keep)
    }

    fn versions(&mut self, program: &str) -> Result<Vec<Version>, StoreError> {
        kept::versions(&self.connection, program)
    }

    fn wasm(&mut self, program: &str, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        kept::wasm(&self.connection, program, number)
    }
}

impl Sqlite {
    /// Returns a key that was not revoked, by its id.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn key(&mut self, id: &str) -> Result<Option<Key>, StoreError> {
        let one = "SELECT * FROM keys WHERE id = ?1 AND revoked IS NULL";
        self.connection.query_row(one, [id], read).optional().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("keys.db")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_key_is_kept_as_it_was_made_and_without_its_secret() {
        let (folder, mut store) = store();
        let (mut key, secret) = Key::create("acme").unwrap();
        key.note = "laptop".into();
        key.scopes = vec![Scope::Inference, Scope::Metrics];
        key.models = Some(vec!["small".into()]);
        key.rates = Rates { tokens_per_minute: Some(5), ..Rates::default() };
        key.expires = Some(key.created + 60);
        store.add(&key).unwrap();
        assert!(store.add(&key).is_err());
        drop(store);
        let mut store = Sqlite::open(&folder.path().join("keys.db")).unwrap();
        assert_eq!(store.keys().unwrap(), [key.clone()]);
        assert_eq!(store.key(&key.id).unwrap(), Some(key));
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let found = bytes.windows(43).any(|part| part == &secret.as_str().as_bytes()[14..]);
            assert!(!found, "the secret is on disk");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, mut store) = store();
        store.add(&Key::create("acme").unwrap().0).unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
        }
    }

    #[test]
    fn a_rotated_key_overlaps_and_a_revoked_one_is_gone() {
        let (_folder, mut store) = store();
        let (old, _) = Key::create("acme").unwrap();
        let (new, _) = Key::create("acme").unwrap();
        store.add(&old).unwrap();
        assert!(store.rotate(&old.id, &new, 1_000).unwrap());
        // A later end does not prolong it.
        assert!(!store.rotate("nothing", &new, 2_000).unwrap());
        let keys = store.keys().unwrap();
        let expiry = |id: &str| keys.iter().find(|key| key.id == id).unwrap().expires;
        assert_eq!((expiry(&old.id), expiry(&new.id)), (Some(1_000), None));
        assert!(store.revoke(&old.id).unwrap());
        assert!(!store.revoke(&old.id).unwrap());
        assert_eq!(store.keys().unwrap(), [new]);
    }

    #[test]
    fn a_change_of_another_process_is_noticed_and_usage_adds_up() {
        let (folder, mut store) = store();
        let mut other = Sqlite::open(&folder.path().join("keys.db")).unwrap();
        store.changed().unwrap();
        assert!(!store.changed().unwrap());
        other.add(&Key::create("acme").unwrap().0).unwrap();
        assert!(store.changed().unwrap());
        assert!(!store.changed().unwrap());
        let used = Used { requests: 1, prompt_tokens: 10, cached_tokens: 4, generated_tokens: 3 };
        store.add_usage(1, &[("a".into(), used), ("b".into(), used)]).unwrap();
        store.add_usage(1, &[("a".into(), used)]).unwrap();
        other.add_usage(2, &[("a".into(), used)]).unwrap();
        let found = store.usage().unwrap();
        let tripled = Used { requests: 3, prompt_tokens: 30, cached_tokens: 12, generated_tokens: 9 };
        assert_eq!(found, [("a".into(), tripled), ("b".into(), used)]);
    }

    #[test]
    fn what_is_no_database_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.db");
        std::fs::write(&path, "a file of words, which is long enough to have a header, and is none").unwrap();
        let error = Sqlite::open(&path).err().unwrap().to_string();
        assert!(error.contains("keys.db"), "{error}");
    }
}
