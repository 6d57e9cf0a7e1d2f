-- What scripts see: the standard library without its ways out, behind tables that cannot be changed.
--
-- Lua 5.1 has no read-only tables. A protected table is an empty stand-in whose metatable reads from the real one and
-- refuses writes; the functions that would look behind it (pairs, next, rawget and so on) know the stand-ins.

local native = ...

local error, type, tostring, tonumber, byte = error, type, tostring, tonumber, string.byte
local select = select
local next, pairs, ipairs, rawget, rawset = next, pairs, ipairs, rawget, rawset
local setmetatable, getmetatable = setmetatable, getmetatable
local pcall, xpcall, loadstring, concat = pcall, xpcall, loadstring, table.concat
local resume = coroutine.resume
local shown, value, complain = native.shown, native.value, native.complain

local real = setmetatable({}, { __mode = "k" })

local READONLY = "Attempt to modify a readonly table"

local function refuse()
    error(READONLY, 2)
end

local function protect(table)
    local stand_in = {}
    real[stand_in] = table
    return setmetatable(stand_in, { __index = table, __newindex = refuse, __metatable = false })
end

-- `level` counts the functions of this file between the complaint and the one that the script called.
local function expect_table(argument, level)
    if type(argument) ~= "table" then
        complain(level or 2, 1, "table expected, got " .. type(argument))
    end
end

local visible = {
    _VERSION = _VERSION,
    assert = assert,
    collectgarbage = collectgarbage,
    error = error,
    gcinfo = gcinfo,
    ipairs = ipairs,
    rawequal = rawequal,
    select = select,
    tonumber = tonumber,
    tostring = tostring,
    type = type,
    unpack = unpack,
}

function visible.pairs(table)
    expect_table(table)
    return next, real[table] or table, nil
end

function visible.next(table, key)
    expect_table(table)
    return next(real[table] or table, key)
end

function visible.rawget(table, key)
    expect_table(table)
    return rawget(real[table] or table, key)
end

function visible.rawset(table, key, item)
    expect_table(table)
    if real[table] then
        error(READONLY, 0)
    end
    return rawset(table, key, item)
end

function visible.setmetatable(table, metatable)
    expect_table(table)
    if real[table] then
        error(READONLY, 0)
    end
    if metatable ~= nil and type(metatable) ~= "table" then
        complain(1, 2, "nil or table expected")
    end
    return setmetatable(table, metatable)
end

function visible.getmetatable(object)
    local metatable = getmetatable(object)
    if metatable == false then
        return nil
    end
    return metatable
end

-- Errors of the server are objects of its own on their way; scripts see tables and strings.

local function settle(ok, problem, ...)
    if ok then
        return ok, problem, ...
    end
    return false, shown(problem)
end

function visible.pcall(...)
    return settle(pcall(...))
end

function visible.xpcall(work, handler)
    return xpcall(work, function(problem)
        return handler(value(problem))
    end)
end

local function resumed(ok, problem, ...)
    if ok then
        return ok, problem, ...
    end
    return false, value(problem)
end

function visible.loadstring(...)
    local text, name = ...
    if type(text) ~= "string" and type(text) ~= "number" then
        local given = select("#", ...) > 0 and type(text) or "no value"
        complain(1, 1, "string expected, got " .. given)
    elseif byte(text) == 27 then
        -- Text all the same: the space keeps it from being taken for a binary chunk.
        return loadstring(" " .. text, name or text)
    end
    return loadstring(text, name)
end

function visible.load(reader, name)
    if type(reader) ~= "function" then
        complain(1, 1, "function expected, got " .. type(reader))
    end
    local pieces = {}
    while true do
        local piece = reader()
        if piece == nil or piece == "" then
            break
        end
        if type(piece) ~= "string" then
            return nil, "reader function must return a string"
        end
        pieces[#pieces + 1] = piece
    end
    return visible.loadstring(concat(pieces), name or "=(load)")
end

local function copy(table)
    local copied = {}
    for name, item in pairs(table) do
        copied[name] = item
    end
    return copied
end

local coroutines = copy(coroutine)
function coroutines.resume(...)
    return resumed(resume(...))
end

local maths = copy(math)
maths.random = native.random
maths.randomseed = native.randomseed

-- These change a table from behind. What they would complain of is looked at before: they would name this file.
local tables = copy(table)
local function expect(wanted, ...)
    local given = type((...))
    if given ~= wanted and not (wanted == "number" and tonumber((...))) then
        complain(3, 2, wanted .. " expected, got " .. given)
    end
end
local complaints = {
    insert = function(...)
        local count = select("#", ...)
        if count ~= 1 and count ~= 2 then
            error("wrong number of arguments to 'insert'", 3)
        elseif count == 2 then
            expect("number", ...)
        end
    end,
    remove = function(...)
        if (...) ~= nil then
            expect("number", ...)
        end
    end,
    setn = function()
        error("'setn' is obsolete", 3)
    end,
    sort = function(...)
        if (...) ~= nil then
            expect("function", ...)
        end
    end,
}
for name, complain in pairs(complaints) do
    local change = table[name]
    tables[name] = function(target, ...)
        expect_table(target)
        if real[target] then
            error(READONLY, 2)
        end
        complain(...)
        return change(target, ...)
    end
end

visible.string = protect(copy(string))
visible.table = protect(tables)
visible.math = protect(maths)
visible.coroutine = protect(coroutines)
visible.os = protect({ clock = os.clock })
for _, name in ipairs({ "bit", "cjson", "cmsgpack", "struct" }) do
    visible[name] = protect(native[name])
end


local strings = getmetatable("")
strings.__index = visible.string
strings.__metatable = protect({ __index = visible.string })

-- The global table itself becomes the stand-in, so that whatever is loaded has it as its environment. What it shows
-- depends on what runs.
local globals = _G
local function missing(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end
for name in pairs(copy(globals)) do
    globals[name] = nil
end

local function without(table, names)
    local copied = copy(table)
    for _, name in ipairs(names) do
        copied[name] = nil
    end
    return copied
end

local function view(table, redis)
    local shown = copy(table)
    shown.redis = redis
    shown.server = redis
    return setmetatable(shown, { __index = missing })
end

visible._G = globals
local loading = without(native.redis, {
    "REPL_ALL", "REPL_AOF", "REPL_NONE", "REPL_REPLICA", "REPL_SLAVE", "acl_check_cmd", "breakpoint", "call", "debug",
    "error_reply", "pcall", "replicate_commands", "set_repl", "setresp", "sha1hex", "status_reply",
})
loading.register_function = native.register_function
local in_functions = without(native.redis, { "breakpoint", "debug", "replicate_commands" })
local views = {
    script = view(visible, protect(native.redis)),
    ["function"] = view(visible, protect(in_functions)),
    loading = view({}, protect(setmetatable(loading, { __index = missing }))),
}

local metatable = { __newindex = refuse, __metatable = protect({}) }
setmetatable(globals, metatable)

-- Chooses what the globals are.
local function enter(name)
    metatable.__index = views[name]
    real[globals] = views[name]
end
enter("script")

local handler = native.handler

-- Runs a library's function under the error handler. No frame of this file's may show on the stack: both calls are the
-- last of their functions.
local function call(work, keys, arguments)
    return xpcall(function()
        return work(keys, arguments)
    end, handler)
end

return xpcall, handler, call, enter, views.script
