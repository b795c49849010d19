//! Reads the fields of a JSON object one by one.

use serde_json::{Map, Value};

use crate::ApiError;

/// An object whose fields are taken as they are read. Fields that are left at the end are unknown. A field
/// that is null counts as missing.
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// The path of the object, such as `messages[1].`.
    path: String,
}

impl Fields {
    pub(crate) fn new(map: Map<String, Value>, path: impl Into<String>) -> Self {
        Self { map, path: path.into() }
    }

    /// Returns an object's fields.
    ///
    /// # Errors
    /// Status 400 for a value that is not an object.
    pub(crate) fn of(value: Value, path: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self::new(map, format!("{path}."))),
            _ => Err(ApiError::invalid(path, format!("{path} must be an object"))),
        }
    }

    /// Returns the full name of a field.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    pub(crate) fn invalid(&self, key: &str, what: &str) -> ApiError {
        let name = self.name(key);
        let message = format!("{name} must be {what}");
        ApiError::invalid(name, message)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(key, "a string")),
        }
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.invalid(key, "true or false")),
        }
    }

    /// Takes a number that fits a 32-bit float.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<f32>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => match value.as_f64().map(|number| number as f32) {
                Some(number) if number.is_finite() => Ok(Some(number)),
                _ => Err(self.invalid(key, "a finite number")),
            },
        }
    }

    /// Takes an integer, which JSON may spell `3.0`.
    pub(crate) fn integer(&mut self, key: &str) -> Result<Option<i128>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => integer(&value).map(Some).ok_or_else(|| self.invalid(key, "an integer")),
        }
    }

    /// Takes an integer that is at least `least` and fits `usize`.
    pub(crate) fn count(&mut self, key: &str, least: usize) -> Result<Option<usize>, ApiError> {
        let Some(number) = self.integer(key)? else { return Ok(None) };
        match usize::try_from(number) {
            Ok(count) if count >= least => Ok(Some(count)),
            _ if number < 0 || least > 0 => {
                let what = format!("an integer of at least {least}, not {number}");
                Err(self.invalid(key, &what))
            }
            _ => Err(self.invalid(key, "a smaller integer")),
        }
    }

    pub(crate) fn list(&mut self, key: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.invalid(key, "an array")),
        }
    }

    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.invalid(key, "an object")),
        }
    }

    /// Drops fields that have no effect, whatever they hold.
    pub(crate) fn skip(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.shift_remove(*key);
        }
    }

    /// Returns the unread fields.
    pub(crate) fn into_rest(self) -> Map<String, Value> {
        self.map
    }

    /// Adds the names of the unread fields to `ignored`.
    pub(crate) fn rest(self, ignored: &mut Vec<String>) {
        let Self { map, path } = self;
        let given = map.iter().filter(|(_, value)| !value.is_null());
        ignored.extend(given.map(|(key, _)| format!("{path}{key}")));
    }
}

/// Returns a number without a fraction as an integer.
pub(crate) fn integer(value: &Value) -> Option<i128> {
    if let Some(number) = value.as_i64() {
        return Some(number.into());
    }
    if let Some(number) = value.as_u64() {
        return Some(number.into());
    }
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e30)?;
    Some(number as i128)
}
