//! Times in seconds, as configurations and bodies write them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// The longest time that can be set, in seconds: a year.
const LONGEST: f64 = 365.0 * 24.0 * 3600.0;

pub(super) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if !(0.001..=LONGEST).contains(&seconds) {
        let why = format!("{seconds} is no time in seconds from 0.001 to {LONGEST}");
        return Err(serde::de::Error::custom(why));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A time that may be missing.
pub(super) mod some_seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Seconds(#[serde(deserialize_with = "super::seconds")] Duration);
        Ok(Option::<Seconds>::deserialize(deserializer)?.map(|Seconds(time)| time))
    }

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_some(&time.as_secs_f64()),
            None => serializer.serialize_none(),
        }
    }
}
