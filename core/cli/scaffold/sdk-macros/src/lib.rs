//! The attributes of the crate `realm-tenant`, which re-exports and documents them.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Error, ItemFn, ItemImpl, parse_macro_input};

/// Makes a function the program's entry point, which answers each request.
///
/// The function takes a `Request`, is `async` or not (Realm's calls are synchronous either way), and returns
/// nothing, a `FinishReason`, or a `Result` of either whose error converts into `realm_tenant::Error`.
///
/// ```ignore
/// #[realm_tenant::run]
/// async fn main(request: Request) -> Result<()> {
///     emit(format!("You said {:?}.", request.input), &[])
/// }
/// ```
#[proc_macro_attribute]
pub fn run(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    program(arguments.into(), &function).unwrap_or_else(Error::into_compile_error).into()
}

fn program(arguments: Tokens, function: &ItemFn) -> Result<Tokens, Error> {
    nothing(arguments)?;
    let (name, signature) = (&function.sig.ident, &function.sig);
    if signature.inputs.len() != 1 || signature.receiver().is_some() {
        let why = "a program takes the request: `async fn main(request: Request) -> Result<()>`";
        return Err(Error::new_spanned(&signature.inputs, why));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(&signature.generics, "a program has no generic parameters"));
    }
    let finished = match signature.asyncness {
        Some(_) => quote!(::realm_tenant::private::finished(#name(request))),
        None => quote!(::realm_tenant::private::Outcome::finish(#name(request))),
    };
    Ok(quote! {
        #function

        const _: () = {
            struct Program;

            impl ::realm_tenant::private::ProgramGuest for Program {
                fn run(
                    request: ::realm_tenant::Request,
                ) -> ::core::result::Result<::realm_tenant::FinishReason, ::realm_tenant::Error> {
                    #finished
                }
            }

            ::realm_tenant::bindings::program::export_program!(
                Program with_types_in ::realm_tenant::bindings::program
            );
        };
    })
}

/// Makes an implementation of `Policy` the policy of this component.
///
/// ```ignore
/// struct Shout;
///
/// #[realm_tenant::policy]
/// impl Policy for Shout {
///     fn begin(_: Request) -> Result<Self> {
///         Ok(Self)
///     }
///     fn observe(&mut self, _: Token, text: String) -> Result<Observed> {
///         Ok(Observed::pass(text.to_uppercase()))
///     }
/// }
/// ```
#[proc_macro_attribute]
pub fn policy(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let implementation = parse_macro_input!(item as ItemImpl);
    policy_of(arguments.into(), &implementation).unwrap_or_else(Error::into_compile_error).into()
}

fn policy_of(arguments: Tokens, implementation: &ItemImpl) -> Result<Tokens, Error> {
    nothing(arguments)?;
    let policy = &implementation.self_ty;
    if implementation.trait_.is_none() {
        return Err(Error::new_spanned(policy, "this belongs on an `impl Policy for` a type"));
    }
    if !implementation.generics.params.is_empty() {
        return Err(Error::new_spanned(&implementation.generics, "a policy has no generic parameters"));
    }
    Ok(quote! {
        #implementation

        const _: () = {
            ::std::thread_local! {
                static STATE: ::realm_tenant::private::State<#policy> =
                    const { ::realm_tenant::private::State::new() };
            }

            struct Component;

            impl ::realm_tenant::private::PolicyGuest for Component {
                fn begin(
                    request: ::realm_tenant::Request,
                ) -> ::core::result::Result<(), ::realm_tenant::Error> {
                    STATE.with(|state| state.begin(request))
                }

                fn sample(
                    logits: &::realm_tenant::Logits,
                ) -> ::core::result::Result<::core::option::Option<::realm_tenant::Token>, ::realm_tenant::Error> {
                    STATE.with(|state| state.ask(|policy| ::realm_tenant::Policy::sample(policy, logits)))
                }

                fn observe(
                    token: ::realm_tenant::Token,
                    text: ::std::string::String,
                ) -> ::core::result::Result<::realm_tenant::Observed, ::realm_tenant::Error> {
                    STATE.with(|state| state.ask(|policy| ::realm_tenant::Policy::observe(policy, token, text)))
                }

                fn end(
                    reason: ::realm_tenant::FinishReason,
                ) -> ::core::result::Result<::std::string::String, ::realm_tenant::Error> {
                    STATE.with(|state| state.ask(|policy| ::realm_tenant::Policy::end(policy, reason)))
                }
            }

            ::realm_tenant::bindings::policy::export_policy!(
                Component with_types_in ::realm_tenant::bindings::policy
            );
        };
    })
}

fn nothing(arguments: Tokens) -> Result<(), Error> {
    if arguments.is_empty() {
        return Ok(());
    }
    Err(Error::new_spanned(arguments, "this attribute takes no arguments"))
}
