/** Realm's errors, a class for each code. */

/** An error: `code` for programs, `message` for people. */
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

/** An argument is out of range or contradicts another. */
export class InvalidArgumentError extends RealmError {
  constructor(message: string) {
    super(message, 'invalid-argument')
  }
}

/** A request is larger than its own limits or its tenant's allow. */
export class LimitExceededError extends RealmError {
  constructor(message: string) {
    super(message, 'limit-exceeded')
  }
}

/** Too many requests wait already. Try again later. */
export class OverloadedError extends RealmError {
  constructor(message: string) {
    super(message, 'overloaded')
  }
}

/** Realm does not support the file, device or option. */
export class UnsupportedError extends RealmError {
  constructor(message: string) {
    super(message, 'unsupported')
  }
}

/** The model or file does not exist. */
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

/** A program is not WebAssembly that Realm can run. */
export class InvalidProgramError extends RealmError {
  constructor(message: string) {
    super(message, 'invalid-program')
  }
}

/** A program broke a rule of WebAssembly, or panicked. */
export class TrapError extends RealmError {
  constructor(message: string) {
    super(message, 'trap')
  }
}

/** A program, or a tool that it called, reported that it failed. */
export class FailedError extends RealmError {
  constructor(message: string) {
    super(message, 'failed')
  }
}

/** A program used something that its tenant was not granted. */
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

/** @internal Returns the error for a code. */
export function errorOf(code: string, message: string): RealmError {
  const known = errorsByCode.get(code)
  return known ? new known(message) : new RealmError(message, code)
}

/**
 * Converts an error of the native half. `vm` and jest have classes of their own, so the error's shape
 * decides.
 */
function converted(error: unknown): unknown {
  const { message, code: kind } = (error ?? {}) as { message?: unknown; code?: unknown }
  if (typeof error !== 'object' || typeof message !== 'string') return error
  const parts = /^realm:([a-z-]+):([^]*)$/.exec(message)
  if (parts) {
    const [, code = '', what = ''] = parts
    return errorOf(code, what)
  }
  // The codes of napi's errors about arguments of other types.
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

/** @internal Calls the native half and awaits its promise. A later error has the caller's stack. */
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
