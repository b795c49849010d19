//! A parsed template. Names and texts are stored as indices into the template's tables.

use std::sync::Arc;

use crate::filters::Filter;
use crate::tests::Test;

/// Index of a name in [`Tables::names`].
pub(crate) type Symbol = u32;

/// The names and texts that the tree's indices refer to.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Names of variables.
    pub(crate) names: Vec<String>,
    /// String literals, attributes and keywords.
    pub(crate) texts: Vec<String>,
}

/// Statements that share a scope.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) statements: Vec<Statement>,
    /// Names that hide outer ones from the scope's beginning, because the scope sets them later.
    pub(crate) hidden: Vec<Symbol>,
}

#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// Text of the template.
    Data(String),
    /// Prints an expression.
    Print(Expr),
    If {
        arms: Vec<(Expr, Vec<Statement>)>,
        otherwise: Vec<Statement>,
    },
    For(Arc<For>),
    Macro(Arc<Macro>),
    /// The tag `{% call(…) f(…) %}`: the call, and its body as a macro.
    Call {
        call: Expr,
        body: Arc<Macro>,
    },
    Set {
        target: Target,
        value: Expr,
    },
    SetBlock {
        target: Target,
        filters: Vec<(u32, Op)>,
        body: Body,
    },
    Filter {
        filters: Vec<(u32, Op)>,
        body: Body,
    },
    With {
        targets: Vec<(Target, Expr)>,
        body: Body,
    },
    /// Statements in a scope of their own: `generation`, `autoescape`, `block`.
    Scope(Body),
    Break,
    Continue,
    /// A tag that needs other templates.
    Unavailable(&'static str),
}

#[derive(Debug)]
pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) iter: Expr,
    pub(crate) test: Option<Expr>,
    pub(crate) recursive: bool,
    pub(crate) body: Body,
    pub(crate) otherwise: Body,
}

#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) name: Option<String>,
    pub(crate) symbol: Symbol,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Body,
    /// Set if the body reads `caller`, and so takes it; `takes_kwargs` and `takes_varargs` are the same for
    /// `kwargs` and `varargs`.
    pub(crate) takes_caller: bool,
    pub(crate) takes_kwargs: bool,
    pub(crate) takes_varargs: bool,
}

#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) symbol: Symbol,
    pub(crate) name: String,
    pub(crate) default: Option<Expr>,
}

/// The target of an assignment.
#[derive(Debug)]
pub(crate) enum Target {
    Name(Symbol),
    /// An attribute of a namespace; the second field is the text's index.
    Attribute(Symbol, u32),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(crate) enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// A string literal.
    Text(u32),
    Name(Symbol),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// A value and the operations on it, in order.
    Postfix(Box<Expr>, Vec<(u32, Op)>),
    /// Operators of one precedence, applied from the left.
    Binary(Box<Expr>, Vec<(Binary, Expr)>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    If {
        test: Box<Expr>,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
}

/// An operation on a value in a [`Expr::Postfix`].
#[derive(Debug)]
pub(crate) enum Op {
    Attribute(u32),
    Item(Box<Expr>),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Arguments),
    Filter { name: String, filter: Option<Filter>, arguments: Arguments },
    Test { name: String, test: Option<Test>, arguments: Arguments, negated: bool },
}

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<Expr>,
    pub(crate) named: Vec<(u32, Expr)>,
    /// The argument `*list`.
    pub(crate) list: Option<Box<Expr>>,
    /// The argument `**dict`.
    pub(crate) dict: Option<Box<Expr>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}
