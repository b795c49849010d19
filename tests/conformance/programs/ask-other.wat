;; Has another program of the tenant run, and answers with what that sent, in brackets.
(module
  (import "realm:tenant/capabilities@0.1.0" "run-program" (func $run (param i32 i32 i32 i32 i32)))
  (import "realm:tenant/output@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 2)
  ;; Where results come: first whether the call failed, from 4 bytes on a list or an error.
  (global $R i32 (i32.const 1024))
  (global $top (mut i32) (i32.const 65536))
  (data (i32.const 512) "other") (data (i32.const 520) "null") (data (i32.const 600) "[")
  (func (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (local.get $at))
  (func $failed (result i32) (i32.load8_u (global.get $R)))
  ;; The zeros at 2048 are `ok(stop)`; what failed is returned where it lies.
  (func (export "realm:tenant/program@0.1.0#run") (param $request i32) (result i32) (local $i i32)
    (call $run (i32.const 512) (i32.const 5) (i32.const 520) (i32.const 4) (global.get $R))
    (if (call $failed) (then (return (global.get $R))))
    (local.set $i (i32.load offset=8 (global.get $R)))
    (memory.copy (i32.const 601) (i32.load offset=4 (global.get $R)) (local.get $i))
    (i32.store8 offset=601 (local.get $i) (i32.const 93))
    (call $emit (i32.const 600) (i32.add (local.get $i) (i32.const 2)) (i32.const 0) (i32.const 0) (global.get $R))
    (i32.const 2048)))
