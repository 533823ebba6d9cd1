-- A Slurm of its own for a test: munge, a controller and two nodes on the loopback address, in one folder, with nothing
-- of the machine's configuration. Needs root, and Debian's slurm-wlm and munge.
local core = require "perilune.core"
local free_ports = require "tests.free_ports"
local program = require "bind.program"
local walks = require "sweep.walks"

local cluster = {}

local configuration <const> = [[
ClusterName=perilune
SlurmctldHost=HOST(127.0.0.1)
SlurmctldPort=PORT0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired: 120 seconds without this, and 5 are the least.
AuthInfo=socket=FOLDER/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
StateSaveLocation=FOLDER/state
SlurmdSpoolDir=FOLDER/spool.%n
SlurmctldPidFile=FOLDER/slurmctld.pid
SlurmdPidFile=FOLDER/%n.pid
SlurmctldLogFile=FOLDER/slurmctld.log
SlurmdLogFile=FOLDER/%n.log
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=2
# Two processors per node, however many there are.
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=HOST NodeAddr=127.0.0.1 Port=PORT1 CPUs=2
NodeName=n2 NodeHostname=HOST NodeAddr=127.0.0.1 Port=PORT2 CPUs=2
PartitionName=all Nodes=n1,n2 Default=YES State=UP
]]

local function output(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

--- Why there can be no cluster here; nil when there can.
function cluster.lacks()
  if output "id -u" ~= "0\n" then return "it needs root" end
  for _, name in ipairs { "munged", "slurmctld", "slurmd", "sbatch" } do
    if not os.execute(("PATH=$PATH:/usr/sbin:/sbin; command -v %s >/dev/null"):format(name)) then
      return ("there is no %s (Debian's slurm-wlm and munge)"):format(name)
    end
  end
end

local function first_line(path)
  local file <close> = io.open(path)
  return file and file:read "l"
end

local Cluster = {}
Cluster.__index = Cluster

--- What a command prints, errors among it, with this cluster's configuration.
function Cluster:ask(command)
  return output(("SLURM_CONF=%s/slurm.conf %s 2>&1"):format(self.folder, command))
end

function Cluster:start(name, command)
  local words = { "/usr/bin/env", "SLURM_CONF=" .. self.folder .. "/slurm.conf", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                  table.unpack(command) }
  self.processes[name] = self.children:start(words, "/", self.folder .. "/" .. name .. ".out")
end

--- Starts a cluster in an empty folder, and waits until both nodes are idle.
function cluster.start(folder)
  local self = setmetatable({ folder = folder, children = core.children(8), processes = {} }, Cluster)
  local ports, values = free_ports(3), { FOLDER = folder, HOST = first_line "/proc/sys/kernel/hostname" }
  for i = 0, 2 do values["PORT" .. i] = tostring(ports[i + 1]) end
  program.write(folder .. "/slurm.conf", (configuration:gsub("%u+%d?", values)))
  assert(os.execute(("cd %s && mkdir state spool.n1 spool.n2 && chmod 755 . && "
    .. "head -c 1024 /dev/urandom >munge.key && chmod 600 munge.key"):format(folder)))
  self:start("munged", { "munged", "--foreground", "--force", "--num-threads=1",
    "--key-file=" .. folder .. "/munge.key", "--socket=" .. folder .. "/munge.socket",
    "--pid-file=" .. folder .. "/munged.pid", "--log-file=" .. folder .. "/munged.log",
    "--seed-file=" .. folder .. "/munge.seed" })
  walks.wait(function() return os.execute("test -S " .. folder .. "/munge.socket") end, "munged")
  self:start("slurmctld", { "slurmctld", "-D" })
  self:start("n1", { "slurmd", "-D", "-N", "n1" })
  self:start("n2", { "slurmd", "-D", "-N", "n2" })
  walks.wait(function() return self:ask("sinfo -h -o '%D %t'"):match "2 idle" end, "both nodes")
  return self
end

-- The jobs' processes whose environment has all of the words, each behind the process that watches it.
function Cluster:jobs(...)
  local found = {}
  for process in output("ls /proc"):gmatch "%f[%d]%d+%f[%D]" do
    local file <close> = io.open("/proc/" .. process .. "/environ", "rb")
    local environment = "\0" .. (file and file:read "a" or "") .. "\0"
    local all = true
    for _, word in ipairs { "SLURM_CONF=" .. self.folder .. "/slurm.conf", "SLURM_JOB_ID", ... } do
      all = all and environment:find("\0" .. word, 1, true)
    end
    if all then
      local parent = first_line("/proc/" .. process .. "/stat"):match "%) %u (%d+)"
      if (first_line("/proc/" .. parent .. "/comm") or ""):match "^slurmstepd" then found[#found + 1] = parent end
      found[#found + 1] = process
    end
  end
  return found
end

--- Ends everything on a node at once, as when its power fails.
function Cluster:cut_power(node)
  os.execute(("kill -9 %d %s 2>/dev/null"):format(self.processes[node],
    table.concat(self:jobs("SLURMD_NODENAME=" .. node .. "\0"), " ")))
end

function Cluster:stop()
  self:ask "scancel --full --user root"
  local left = self:jobs()
  if #left > 0 then os.execute(("kill -9 %s 2>/dev/null"):format(table.concat(left, " "))) end
  local _ <close> = self.children
end

return cluster
