;; Never ends.
(module
  (memory (export "memory") 1)
  (func (export "realm_run") (result i32) (loop $again (br $again)) (i32.const 0)))
