//! Reads metadata of one architecture, and checks it.

use realm_gguf::{Array, Gguf, Metadata, Value};

use crate::Error;

/// The largest dimension that is accepted. Larger ones are a mistake, and would overflow products of two.
pub(super) const MOST: u64 = 1 << 24;

/// The metadata of one architecture: keys are given without the architecture's name before them.
pub(super) struct Reader<'a> {
    pub(super) gguf: &'a Gguf,
    pub(super) prefix: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn metadata(&self) -> &'a Metadata {
        self.gguf.metadata()
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn value(&self, name: &str) -> Option<&'a Value> {
        self.metadata().get(&self.key(name))
    }

    fn checked(&self, name: &str, value: i128, least: u64) -> Result<usize, Error> {
        match u64::try_from(value) {
            Ok(v) if (least..=MOST).contains(&v) => Ok(v as usize),
            _ => Err(Error::InvalidModel(format!(
                "metadata `{}` is {value}; {least} to {MOST} are possible",
                self.key(name)
            ))),
        }
    }

    /// Reads a count of at least `least`. If the file has one number for each layer, all must be the same.
    fn count(&self, name: &str, least: u64) -> Result<Option<usize>, Error> {
        let key = self.key(name);
        let value = match self.value(name) {
            None => return Ok(None),
            Some(Value::Array(array)) => {
                let all = array.integers().unwrap_or_default();
                match all.first() {
                    Some(first) if all.iter().all(|v| v == first) => *first,
                    _ => {
                        return Err(Error::Unsupported(format!(
                            "metadata `{key}` differs from layer to layer, which this architecture's files don't"
                        )));
                    }
                }
            }
            Some(_) => match self.metadata().u64(&key)? {
                None => return Ok(None),
                Some(value) => i128::from(value),
            },
        };
        self.checked(name, value, least).map(Some)
    }

    /// A dimension: 1 to [`MOST`].
    pub(super) fn optional_dim(&self, name: &str) -> Result<Option<usize>, Error> {
        self.count(name, 1)
    }

    /// A dimension that the file must have.
    pub(super) fn dim(&self, name: &str) -> Result<usize, Error> {
        self.optional_dim(name)?.ok_or_else(|| self.missing(name))
    }

    /// A dimension of which 0 means that there is none.
    pub(super) fn dim_or_none(&self, name: &str) -> Result<Option<usize>, Error> {
        Ok(self.count(name, 0)?.filter(|&dim| dim > 0))
    }

    /// A dimension for each of `layers` layers; the file has one for all, or an array.
    pub(super) fn dims(&self, name: &str, layers: usize) -> Result<Option<Vec<usize>>, Error> {
        let Some(Value::Array(array)) = self.value(name) else {
            return Ok(self.optional_dim(name)?.map(|dim| vec![dim; layers]));
        };
        let all = array.integers().unwrap_or_default();
        let Some(all) = all.get(..layers) else {
            return Err(Error::InvalidModel(format!(
                "metadata `{}` has {} numbers for {layers} layers",
                self.key(name),
                all.len()
            )));
        };
        all.iter().map(|&value| self.checked(name, value, 1)).collect::<Result<_, _>>().map(Some)
    }

    /// For each layer whether it is set; the file may have an array of truth values or numbers.
    pub(super) fn flags(&self, name: &str, layers: usize) -> Option<Vec<bool>> {
        match self.value(name) {
            Some(Value::Array(Array::Bool(flags))) => flags.get(..layers).map(<[bool]>::to_vec),
            Some(Value::Array(array)) => {
                Some(array.integers()?.get(..layers)?.iter().map(|&value| value != 0).collect())
            }
            _ => None,
        }
    }

    /// The width of all shared experts together, if there are any: each has `width` numbers per hidden state,
    /// or as many as an expert.
    pub(super) fn shared_experts(&self, width: Option<usize>) -> Result<Option<usize>, Error> {
        let Some(count) = self.dim_or_none("expert_shared_count")? else { return Ok(None) };
        let width = width.map_or_else(|| self.dim("expert_feed_forward_length"), Ok)?;
        Ok(Some(count * width))
    }

    /// An integer of any size, for numbers that stand for something.
    pub(super) fn code(&self, name: &str) -> Option<u64> {
        self.metadata().u64(&self.key(name)).ok().flatten()
    }

    /// A truth value.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// A float that is finite and above 0.
    pub(super) fn optional_float(&self, name: &str) -> Result<Option<f32>, Error> {
        let key = self.key(name);
        match self.metadata().f32(&key)? {
            Some(v) if v.is_finite() && v > 0.0 => Ok(Some(v)),
            Some(v) => Err(Error::InvalidModel(format!("metadata `{key}` is {v}; it has to be above 0"))),
            None => Ok(None),
        }
    }

    /// A float that is finite and above 0, of which 0 means that there is none.
    pub(super) fn float_or_none(&self, name: &str) -> Result<Option<f32>, Error> {
        match self.metadata().f32(&self.key(name))? {
            Some(0.0) => Ok(None),
            _ => self.optional_float(name),
        }
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        Error::InvalidModel(format!("metadata `{}` is missing", self.key(name)))
    }
}
