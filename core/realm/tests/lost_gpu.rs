//! A GPU that fails while a realm uses it: its requests end, the process lives, and another device takes
//! over. CUDA's documentation says that after such a failure only a new process can use the GPU.

use cudarc::driver::{result, sys};
use realm::{Error, ErrorCode, Realm, Request};

/// Stores to an address that belongs to no allocation.
const KERNEL: &str = "\
.version 7.0
.target sm_80
.address_size 64
.visible .entry stray() {
    .reg .b64 %where;
    .reg .b32 %what;
    mov.b64 %where, 16;
    mov.b32 %what, 1;
    st.global.b32 [%where], %what;
    ret;
}
\0";

/// Breaks the context of the first GPU, which the whole process shares.
fn break_gpu() {
    // SAFETY: every call gets values that the driver returned; the kernel's fault is the purpose.
    unsafe {
        let device = result::device::get(0).unwrap();
        let context = result::primary_ctx::retain(device).unwrap();
        result::ctx::set_current(context).unwrap();
        let module = result::module::load_data(KERNEL.as_ptr().cast()).unwrap();
        let kernel = result::module::get_function(module, c"stray".into()).unwrap();
        let stream = std::ptr::null_mut();
        result::launch_kernel(kernel, (1, 1, 1), (1, 1, 1), 0, stream, &mut []).unwrap();
        let lost = sys::cuCtxSynchronize();
        assert_eq!(lost, sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        result::primary_ctx::release(device).unwrap();
    }
}

/// Returns the model's answer; with `lose`, breaks the GPU after it and checks the errors of later requests.
fn ask(realm: &Realm, lose: bool) -> Result<String, Error> {
    let model = realm.load_model("smollm2-135m")?;
    let request = || Request::text("The capital of France is").temperature(0.0).max_tokens(8);
    let text = model.generate(request())?.text;
    if lose {
        break_gpu();
        // The request that meets the fault, and the next one.
        for _ in 0..2 {
            let Err(error) = model.generate(request()) else { panic!("a lost GPU answers") };
            assert_eq!(error.code(), ErrorCode::Internal);
            assert!(error.message().contains("another device"), "{error}");
        }
    }
    Ok(text)
}

#[test]
fn a_lost_gpu_ends_requests_and_nothing_else() {
    let Ok(realm) = Realm::builder().device("cuda").build() else {
        eprintln!("SKIPPED: there is no GPU");
        return;
    };
    let text = ask(&realm, true).unwrap();
    // The old realm's GPU stays lost.
    assert!(ask(&realm, false).is_err());
    drop(realm);
    let cpu = Realm::builder().device("cpu").threads(2).build().unwrap();
    assert!(!ask(&cpu, false).unwrap().is_empty());
    let auto = Realm::builder().threads(2).build().unwrap();
    assert!(!ask(&auto, false).unwrap().is_empty());
    // A driver that can do more than CUDA promises is welcome.
    match Realm::builder().device("cuda").build().and_then(|anew| ask(&anew, false)) {
        Ok(again) => assert_eq!(again, text),
        Err(error) => assert!(error.message().contains("new process"), "{error}"),
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_figures() {
    let Ok(realm) = Realm::builder().device("cuda").build() else {
        eprintln!("SKIPPED: there is no GPU");
        return;
    };
    let options = realm::LoadOptions { kv_memory: Some(1 << 50), gpu_layers: Some(99), ..Default::default() };
    let Err(error) = realm.load_model_with("smollm2-135m", &options, &mut ()) else { panic!("a petabyte") };
    assert_eq!(error.code(), ErrorCode::LimitExceeded);
    assert!(error.message().contains("bytes needed") && error.message().contains("are free"), "{error}");
}
