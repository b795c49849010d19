//! Tenants and their programs.

use napi::bindgen_prelude::*;
use napi_derive::napi;
use realm::unblock;
use serde_json::json;

use crate::error::failed;
use crate::grants::{Log, Tools, grants};
use crate::handle::Handle;
use crate::model::NativeModel;
use crate::options::{limits, limits_json};

/// A compiled program.
#[napi]
pub struct NativeProgram {
    handle: Handle<realm::Program>,
}

impl NativeProgram {
    pub(crate) fn new(program: realm::Program) -> Self {
        Self { handle: Handle::new("Program", program) }
    }
}

#[napi]
impl NativeProgram {
    /// Returns facts about the program, as JSON.
    #[napi]
    pub fn info(&self) -> Result<String> {
        let program = self.handle.get()?;
        let info = program.info();
        let info = json!({
            "contract": info.contract.as_str(), "imports": info.imports, "exports": info.exports, "bytes": info.bytes,
        });
        Ok(info.to_string())
    }

    /// Releases the program.
    #[napi]
    pub fn close(&self) {
        self.handle.close();
    }
}

/// An identity with limits.
#[napi]
pub struct NativeTenant {
    handle: Handle<realm::Tenant>,
}

impl NativeTenant {
    pub(crate) fn new(tenant: realm::Tenant) -> Self {
        Self { handle: Handle::new("Tenant", tenant) }
    }
}

#[napi]
impl NativeTenant {
    /// Returns the tenant's name, requests and limits, as JSON.
    #[napi]
    pub fn info(&self) -> Result<String> {
        let tenant = self.handle.get()?;
        let info = json!({
            "name": tenant.name(), "running": tenant.running(), "waiting": tenant.waiting(),
            "limits": limits_json(&tenant.limits()),
        });
        Ok(info.to_string())
    }

    /// Changes the tenant's limits.
    #[napi]
    pub fn set_limits(&self, limits: String) -> Result<()> {
        self.handle.get()?.set_limits(self::limits(&limits)?).map_err(failed)
    }

    /// Returns a model as the tenant sees it.
    #[napi]
    pub fn model(&self, model: &NativeModel) -> Result<NativeModel> {
        Ok(NativeModel::new(self.handle.get()?.model(&model.handle.get()?).map_err(failed)?))
    }

    /// Compiles a program on the tenant's account.
    #[napi]
    pub async fn compile_program(&self, wasm: Buffer) -> Result<NativeProgram> {
        let tenant = self.handle.get()?;
        let program = unblock(move || tenant.compile_program(&wasm)).await.map_err(failed)?;
        Ok(NativeProgram::new(program))
    }

    /// Sets the program that answers the tenant's requests from now on.
    #[napi]
    pub fn set_program(&self, program: Option<&NativeProgram>) -> Result<()> {
        let program = program.map(|program| program.handle.get()).transpose()?;
        self.handle.get()?.set_program(program.as_ref());
        Ok(())
    }

    /// Returns the program that answers the tenant's requests.
    #[napi]
    pub fn program(&self) -> Result<Option<NativeProgram>> {
        Ok(self.handle.get()?.program().map(NativeProgram::new))
    }

    /// Adds a program that the tenant's other programs may run.
    #[napi]
    pub fn add_program(&self, name: String, program: &NativeProgram) -> Result<()> {
        self.handle.get()?.add_program(name, &program.handle.get()?);
        Ok(())
    }

    /// Removes a program that others may run.
    #[napi]
    pub fn remove_program(&self, name: String) -> Result<bool> {
        Ok(self.handle.get()?.remove_program(&name))
    }

    /// Sets what the tenant's programs may do.
    #[napi]
    pub fn set_grants(
        &self,
        options: String,
        #[napi(ts_arg_type = "((tenant: string, level: string, message: string) => void) | null")]
        log: Option<Log<'_>>,
        #[napi(ts_arg_type = "((tool: string, json: string) => Promise<string>) | null")] tools: Option<
            Tools<'_>,
        >,
    ) -> Result<()> {
        self.handle.get()?.set_grants(grants(&options, log, tools)?);
        Ok(())
    }

    /// Returns the bytes of memory that the tenant holds, by kind, as JSON.
    #[napi]
    pub fn memory(&self) -> Result<String> {
        Ok(crate::metrics::memory(&self.handle.get()?.memory()).to_string())
    }

    /// Returns the tenant's counters and gauges, as JSON.
    #[napi]
    pub fn metrics(&self) -> Result<String> {
        Ok(crate::metrics::served(&self.handle.get()?.metrics()).to_string())
    }

    /// Releases the tenant.
    #[napi]
    pub fn close(&self) {
        self.handle.close();
    }
}
