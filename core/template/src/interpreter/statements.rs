//! Runs statements.

use std::rc::Rc;

use super::{Arguments, Flow, Renderer, Scope};
use crate::ast::{Body, Kind, Op, Statement, Target};
use crate::error::{At, Result, fault};
use crate::text::Builder;
use crate::value::{Iteration, Key, Value};

impl Renderer<'_> {
    pub(super) fn statements(
        &self,
        statements: &[Statement],
        scope: &Rc<Scope>,
        out: &mut Builder,
    ) -> Result<Flow> {
        for statement in statements {
            self.budget.step(1)?;
            let flow = self.statement(statement, scope, out).at(statement.line)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&self, statement: &Statement, scope: &Rc<Scope>, out: &mut Builder) -> Result<Flow> {
        match &statement.kind {
            Kind::Data(text) => out.push_str(text)?,
            Kind::Print(value) => self.eval(value, scope)?.print(out)?,
            Kind::If { arms, otherwise } => {
                self.check_stack()?;
                for (test, body) in arms {
                    if self.eval(test, scope).at(statement.line)?.is_true() {
                        return self.statements(body, scope, out);
                    }
                }
                return self.statements(otherwise, scope, out);
            }
            Kind::For(this) => {
                self.check_stack()?;
                return self.for_loop(this, scope, out);
            }
            Kind::Macro(definition) => {
                let value = self.macro_value(definition, scope)?;
                scope.set(definition.symbol, value)?;
            }
            Kind::Call { call, body } => {
                self.check_stack()?;
                self.call_block(call, body, scope)?.print(out)?;
            }
            Kind::Set { target, value } => {
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            Kind::SetBlock { target, filters, body } => {
                self.check_stack()?;
                match self.captured(filters, body, scope)? {
                    Ok(value) => self.assign(target, value, scope)?,
                    Err(flow) => return Ok(flow),
                }
            }
            Kind::Filter { filters, body } => {
                self.check_stack()?;
                match self.captured(filters, body, scope)? {
                    Ok(value) => value.print(out)?,
                    Err(flow) => return Ok(flow),
                }
            }
            Kind::With { targets, body } => {
                self.check_stack()?;
                let inner = Scope::new(&self.budget, Some(scope), &body.hidden)?;
                for (target, value) in targets {
                    let value = self.eval(value, scope)?;
                    self.assign(target, value, &inner)?;
                }
                return self.statements(&body.statements, &inner, out);
            }
            Kind::Scope(body) => {
                self.check_stack()?;
                let inner = Scope::new(&self.budget, Some(scope), &body.hidden)?;
                return self.statements(&body.statements, &inner, out);
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
            Kind::Unavailable(tag) => {
                return Err(fault(format!(
                    "`{tag}` needs another template, and a chat template stands alone; write its text here"
                )));
            }
        }
        Ok(Flow::Next)
    }

    /// Returns the filtered output of a body, and how the loop's pass ended if it ended in the body.
    fn captured(
        &self,
        filters: &[(u32, Op)],
        body: &Body,
        scope: &Rc<Scope>,
    ) -> Result<std::result::Result<Value, Flow>> {
        let inner = Scope::new(&self.budget, Some(scope), &body.hidden)?;
        let mut out = Builder::new(&self.budget);
        let flow = self.statements(&body.statements, &inner, &mut out)?;
        if flow != Flow::Next {
            return Ok(Err(flow));
        }
        let mut value = Value::Str(out.finish());
        for (line, op) in filters {
            let Op::Filter { name, filter, arguments } = op else { continue };
            let filter = filter.ok_or_else(|| fault(format!("there is no filter `{name}`")));
            let arguments = self.arguments(arguments, &inner)?;
            value = filter.and_then(|filter| filter(self, value, arguments)).at(*line)?;
        }
        Ok(Ok(value))
    }

    /// Assigns a value to a name or to a namespace's attribute, or its items to several names.
    pub(super) fn assign(&self, target: &Target, value: Value, scope: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(symbol) => scope.set(*symbol, value),
            Target::Attribute(symbol, attribute) => {
                let Value::Namespace(namespace) = self.lookup(*symbol, scope)? else {
                    return Err(fault(
                        "only attributes of a namespace can be set; make one with `namespace()`",
                    ));
                };
                let key = Key::text(self.text(*attribute).clone());
                self.budget.read(self.text(*attribute).len())?;
                if !namespace.attributes.borrow().contains_key(&key) {
                    namespace.charge.borrow_mut().grow(3 * size_of::<Value>())?;
                }
                let old = namespace.attributes.borrow_mut().insert(key, value);
                drop(old);
                Ok(())
            }
            Target::Tuple(targets) => {
                let mut items = Iteration::of(&value)?;
                for target in targets {
                    let Some(item) = items.next(&self.budget)? else {
                        return Err(fault(format!("too few values; {} are needed", targets.len())));
                    };
                    self.assign(target, item, scope)?;
                }
                match items.next(&self.budget)? {
                    None => Ok(()),
                    Some(_) => Err(fault(format!("too many values; {} are needed", targets.len()))),
                }
            }
        }
    }

    /// Calls any callable value.
    pub(crate) fn call(&self, callee: &Value, arguments: Arguments) -> Result<Value> {
        self.budget.step(1)?;
        match callee {
            Value::Macro(this) => self.call_macro(this, arguments).map(Value::Str),
            Value::Method(value, name) => crate::methods::call(self, value, name, arguments),
            Value::Function(function) => function.call(self, arguments),
            Value::Loop(this) => {
                let [items] = arguments.bind("loop", ["iterable"])?;
                let items = items.ok_or_else(|| fault("`loop(...)` needs what to go through next"))?;
                self.recurse(this, &items)
            }
            Value::Joiner(joiner) => {
                arguments.none("joiner")?;
                Ok(joiner.next())
            }
            Value::Undefined(missing) => Err(fault(format!("can't be called: {}", missing.message()))),
            other => Err(fault(format!("{} can't be called", other.described()))),
        }
    }
}
