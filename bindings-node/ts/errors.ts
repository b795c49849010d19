/** Realm's errors, a class for each code. */

/** What went wrong: `code` for programs, `message` for people. */
export class RealmError extends Error {
  /** A stable name, the same in every language. */
  readonly code: string

  constructor(message: string, code = 'internal') {
    super(message)
    this.code = code
    this.name = new.target.name
  }
}

/** A model's file is malformed or contradicts itself. */
export class InvalidModelError extends RealmError {
  constructor(message: string) {
    super(message, 'invalid-model')
  }
}

/** An adapter's file is malformed, contradicts itself or does not fit the model. */
export class InvalidAdapterError extends RealmError {
  constructor(message: string) {
    super(message, 'invalid-adapter')
  }
}

/** An argument means nothing. */
export class InvalidArgumentError extends RealmError {
  constructor(message: string) {
    super(message, 'invalid-argument')
  }
}

/** A request is larger than what it or its tenant was given. */
export class LimitExceededError extends RealmError {
  constructor(message: string) {
    super(message, 'limit-exceeded')
  }
}

/** Too many requests wait already. */
export class OverloadedError extends RealmError {
  constructor(message: string) {
    super(message, 'overloaded')
  }
}

/** Realm does not do that. */
export class UnsupportedError extends RealmError {
  constructor(message: string) {
    super(message, 'unsupported')
  }
}

/** No such model. */
export class NotFoundError extends RealmError {
  constructor(message: string) {
    super(message, 'not-found')
  }
}

/** Reading, writing or fetching failed. */
export class IoError extends RealmError {
  constructor(message: string) {
    super(message, 'io')
  }
}

/** A program is no WebAssembly that Realm can run. */
export class InvalidProgramError extends RealmError {
  constructor(message: string) {
    super(message, 'invalid-program')
  }
}

/** A program did what WebAssembly forbids, or panicked. */
export class TrapError extends RealmError {
  constructor(message: string) {
    super(message, 'trap')
  }
}

/** A program, or a tool that it called, says that it failed. */
export class FailedError extends RealmError {
  constructor(message: string) {
    super(message, 'failed')
  }
}

/** A program asked for what its tenant was not granted. */
export class DeniedError extends RealmError {
  constructor(message: string) {
    super(message, 'denied')
  }
}

/** The request was cancelled. */
export class CancelledError extends RealmError {
  constructor(message: string) {
    super(message, 'cancelled')
  }
}

/** Realm itself failed. */
export class InternalError extends RealmError {
  constructor(message: string) {
    super(message, 'internal')
  }
}

const CLASSES = [
  InvalidModelError,
  InvalidAdapterError,
  InvalidArgumentError,
  LimitExceededError,
  OverloadedError,
  UnsupportedError,
  NotFoundError,
  IoError,
  InvalidProgramError,
  TrapError,
  FailedError,
  DeniedError,
  CancelledError,
  InternalError,
]

/** The class for each code. */
export const errorsByCode: ReadonlyMap<string, new (message: string) => RealmError> = new Map(
  CLASSES.map((each) => [new each('').code, each]),
)

/** @internal The error for a code. */
export function errorOf(code: string, message: string): RealmError {
  const known = errorsByCode.get(code)
  return known ? new known(message) : new RealmError(message, code)
}

/** An error of the native half as users see it. `vm` and jest have classes of their own, so its shape counts. */
function converted(error: unknown): unknown {
  const { message, code: kind } = (error ?? {}) as { message?: unknown; code?: unknown }
  if (typeof error !== 'object' || typeof message !== 'string') return error
  const parts = /^realm:([a-z-]+):([^]*)$/.exec(message)
  if (parts) {
    const [, code = '', what = ''] = parts
    return errorOf(code, what)
  }
  // What napi says of arguments of other types.
  const types = ['InvalidArg', 'StringExpected', 'NumberExpected', 'ArrayExpected', 'ObjectExpected', 'BooleanExpected']
  return types.includes(String(kind)) ? new TypeError(message) : error
}

/** @internal Calls the native half. */
export function call<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw converted(error)
  }
}

/** @internal Calls the native half and waits for what it promises. An error that comes later shows who called. */
export async function wait<T>(work: () => Promise<T>): Promise<T> {
  const caller: { stack?: string } = {}
  Error.captureStackTrace(caller, wait)
  try {
    return await work()
  } catch (error) {
    const shown = converted(error)
    if (shown !== error && shown instanceof Error) {
      const frames = caller.stack?.split('\n').slice(1).join('\n')
      shown.stack = `${shown.name}: ${shown.message}\n${frames}`
    }
    throw shown
  }
}
