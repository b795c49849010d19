;; No program: it exports no `realm_run`.
(module (memory (export "memory") 1))
