//! The JSON of a number that may be infinite or nan. Since JSON has neither, it is a string then.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Json {
    Number(f64),
    Word(String),
}

impl Json {
    fn of(value: f64) -> Json {
        match value {
            value if value.is_finite() => Json::Number(value),
            value if value.is_nan() => Json::Word("NaN".to_owned()),
            value if value > 0. => Json::Word("Infinity".to_owned()),
            _ => Json::Word("-Infinity".to_owned()),
        }
    }

    fn value<E: de::Error>(self) -> Result<f64, E> {
        match self {
            Json::Number(value) => Ok(value),
            Json::Word(word) => match &*word {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                _ => Err(de::Error::custom(format!("{word:?} is not a number"))),
            },
        }
    }
}

pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Json::of(*value).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(json: D) -> Result<f64, D::Error> {
    Json::deserialize(json)?.value()
}

/// The same of a number that may not be there.
pub(super) mod optional {
    use super::{Deserialize, Deserializer, Json, Serialize, Serializer};

    pub(in crate::compare) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Json::of).serialize(serializer)
    }

    pub(in crate::compare) fn deserialize<'de, D: Deserializer<'de>>(
        json: D,
    ) -> Result<Option<f64>, D::Error> {
        Option::<Json>::deserialize(json)?.map(Json::value).transpose()
    }
}
