;; Does what WebAssembly forbids.
(module
  (memory (export "memory") 1)
  (func (export "realm_run") (result i32) unreachable))
