/**
 * The global types that this package's declarations name, for programs compiled without those of Node or of
 * the DOM. If these types exist, the empty interfaces merge with them and change nothing.
 */

declare global {
  interface AbortSignal {}
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  interface ReadableStream<R = any> {}
  interface SymbolConstructor {
    readonly dispose: unique symbol
    readonly asyncDispose: unique symbol
  }
  interface Disposable {
    [Symbol.dispose](): void
  }
  interface AsyncDisposable {
    [Symbol.asyncDispose](): PromiseLike<void>
  }
}

export {}
