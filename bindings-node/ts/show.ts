/** The display of objects in `console.log`, `util.inspect` and `JSON.stringify`. */

type Fields = Record<string, unknown>
type Inspect = (value: unknown, options: unknown) => string

const INSPECT = Symbol.for('nodejs.util.inspect.custom')

/**
 * @internal Makes instances of a class show these fields instead of the native half, which shows nothing. A
 * closed instance has no fields.
 */
export function shown<T extends object>(type: { prototype: T; name: string }, fields: (instance: T) => Fields): void {
  const read = (instance: T): Fields => {
    try {
      return fields(instance)
    } catch {
      return { closed: true }
    }
  }
  const define = (name: string | symbol, value: unknown) =>
    Object.defineProperty(type.prototype, name, { value, configurable: true, writable: true })
  define('toJSON', function (this: T) {
    return read(this)
  })
  define(INSPECT, function (this: T, depth: number, options: Fields, inspect: Inspect) {
    return depth < 0 ? `[${type.name}]` : `${type.name} ${inspect(read(this), options)}`
  })
}

/** @internal Sets a field that is not listed among an object's own. */
export function hidden(instance: object, name: string, value: unknown): void {
  Object.defineProperty(instance, name, { value })
}
