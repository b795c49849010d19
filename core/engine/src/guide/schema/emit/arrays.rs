//! Arrays: items by position, counts of items, and distinct items.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::{Emitter, Made};
use crate::guide::rules::Symbol;
use crate::guide::schema::Result;
use crate::guide::schema::meet::exclude_each_other;
use crate::guide::schema::types::{Array, Schema};

/// The most sets of items in an array of distinct items.
const MAX_SUBSETS: usize = 1024;

impl Emitter<'_, '_> {
    pub(super) fn array(&mut self, array: &Array) -> Result<Made<Symbol>> {
        let (open, close) = (self.rules.literal("[")?, self.rules.literal("]")?);
        if let Some(place) = &array.unique
            && array.max.is_none_or(|max| max > 1)
        {
            return self.different(array, place);
        }
        let mut max = array.max.unwrap_or(usize::MAX);
        let mut prefix = Vec::new();
        for (i, schema) in array.prefix.iter().enumerate().take(max) {
            match self.schema(schema)? {
                Ok(symbol) => prefix.push(symbol),
                Err(_) if i >= array.min => {
                    max = i;
                    break;
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        let count = prefix.len();
        let mut ends = Vec::new();
        if count >= array.min {
            ends.push(Vec::new());
        }
        if max > count {
            match self.schema(&array.rest)? {
                Ok(item) => {
                    let least = array.min.saturating_sub(count).max(1);
                    let most = (max != usize::MAX).then(|| max - count);
                    ends.push(vec![self.list(item, least, most, count == 0)?]);
                }
                Err(why) if count < array.min => return Ok(Err(why)),
                Err(_) => {}
            }
        }
        let mut rest = self.rules.rule(ends)?;
        for (i, item) in prefix.into_iter().enumerate().rev() {
            let mut options = vec![if i == 0 { vec![item, rest] } else { vec![self.comma, item, rest] }];
            if i >= array.min {
                options.push(Vec::new());
            }
            rest = self.rules.rule(options)?;
        }
        self.rules.rule(vec![vec![open, rest, close]]).map(Ok)
    }

    /// `min`, which is not 0, to `max` items; preceded by a separator unless they are the first.
    pub(super) fn list(
        &mut self,
        item: Symbol,
        min: usize,
        max: Option<usize>,
        first: bool,
    ) -> Result<Symbol> {
        let another = self.rules.rule(vec![vec![self.comma, item]])?;
        let taken = usize::from(first);
        let more = self.rules.repeat(another, min - taken, max.map(|max| max - taken))?;
        self.rules.rule(vec![if first { vec![item, more] } else { vec![more] }])
    }

    /// An array of distinct values.
    fn different(&mut self, array: &Array, place: &str) -> Result<Made<Symbol>> {
        let refusal = "can't be guaranteed unless the items are of a short `enum`, or exclude each other in `prefixItems`";
        let rest = match &*array.rest {
            Schema::Ref(target) => self.reader.definition(*target)?,
            _ => Rc::clone(&array.rest),
        };
        if !array.prefix.is_empty()
            && (rest.is_never() || array.max.is_some_and(|max| max <= array.prefix.len()))
        {
            for (i, a) in array.prefix.iter().enumerate() {
                for b in &array.prefix[..i] {
                    if !exclude_each_other(self.reader, a, b)? {
                        self.reader.refuse(place, refusal)?;
                    }
                }
            }
        } else if let (Schema::Values(values), true) = (&*rest, array.prefix.is_empty()) {
            if let Some(made) = self.subsets(values, array)? {
                let (open, close) = (self.rules.literal("[")?, self.rules.literal("]")?);
                return made.map_or_else(
                    |why| Ok(Err(why)),
                    |inner| self.rules.rule(vec![vec![open, inner, close]]).map(Ok),
                );
            }
            self.reader.refuse(
                place,
                &format!(
                    "can't be guaranteed for {} values; there are too many orders of them",
                    values.len()
                ),
            )?;
        } else {
            self.reader.refuse(place, refusal)?;
        }
        self.array(&Array { unique: None, ..array.clone() })
    }

    /// Some of `values` in any order, each once; `None` if there are too many ways.
    fn subsets(&mut self, values: &[Value], array: &Array) -> Result<Option<Made<Symbol>>> {
        let mut distinct: Vec<&Value> = Vec::new();
        for value in values {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        let count = distinct.len();
        let max = array.max.map_or(count, |max| max.min(count));
        if array.min > max {
            return Ok(Some(Err(format!("it asks for {} different items and names {count}", array.min))));
        }
        if count > 20 {
            return Ok(None);
        }
        let masks: Vec<u32> = (0..1u32 << count)
            .filter(|mask| mask.count_ones() as usize <= max)
            .take(MAX_SUBSETS + 1)
            .collect();
        if masks.len() > MAX_SUBSETS {
            return Ok(None);
        }
        let mut items = Vec::new();
        for value in distinct {
            match self.schema(&super::value(value))? {
                Ok(symbol) => items.push(symbol),
                Err(why) => return Ok(Some(Err(why))),
            }
        }
        // For each set of items so far, its possible continuation. Larger sets come first.
        let mut after: HashMap<u32, Symbol> = HashMap::new();
        for mask in masks.into_iter().rev() {
            let taken = mask.count_ones() as usize;
            let mut options = Vec::new();
            if taken >= array.min {
                options.push(Vec::new());
            }
            for (i, &item) in items.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 0 && taken < max) {
                let next = after[&(mask | 1 << i)];
                options.push(if mask == 0 { vec![item, next] } else { vec![self.comma, item, next] });
            }
            after.insert(mask, self.rules.rule(options)?);
        }
        Ok(Some(Ok(after[&0])))
    }
}
