-- Ports for tests whose processes talk to each other: free_ports(count) -> list.

--- Ports at which nobody listens, below those that the system gives to clients.
return function(count)
  local taken, found = {}, {}
  local pipe <close> = assert(io.popen "cat /proc/net/tcp /proc/net/tcp6")
  for port in pipe:read("a"):gmatch ":(%x%x%x%x) %x+:%x%x%x%x 0A" do taken[tonumber(port, 16)] = true end
  local port = math.random(20000, 30000)
  while #found < count do
    port = port + 1
    if not taken[port] then found[#found + 1] = port end
  end
  return found
end
